"""Names that packages export lazily."""

import pkgutil
from importlib import import_module

import pytest

import autoreid_fast

ROOMS = [f"autoreid_fast.{info.name}" for info in pkgutil.iter_modules(autoreid_fast.__path__) if info.ispkg]
PACKAGES = [name for name in ("autoreid_fast", *ROOMS) if "__getattr__" in vars(import_module(name))]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exported_name_can_be_imported(package: str) -> None:
    module = import_module(package)
    assert len(module.__all__) == len(set(module.__all__)) > 0
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match=f"{package}.* has no attribute 'nonsense'"):
        module.nonsense  # noqa: B018
