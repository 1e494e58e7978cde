"""The examples in docstrings of models, nas and losses run."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import autoreid_fast
from autoreid_fast.losses import LOSSES
from autoreid_fast.models import BACKBONES
from autoreid_fast.nas import space as search_spaces

ROOT = Path(autoreid_fast.__file__).parent
MODULES = [
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    for room in ("losses", "models", "nas")
    for path in sorted((ROOT / room).rglob("*.py"))
    if ">>>" in path.read_text()
]


@pytest.fixture(autouse=True)
def _registries_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (BACKBONES, LOSSES):
        registry.names()  # registers the built-in ones
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(search_spaces, "_SPACES", dict(search_spaces._SPACES))


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    assert doctest.testmod(import_module(name)).failed == 0
