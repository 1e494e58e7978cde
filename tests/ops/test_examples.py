"""The `Examples:` of the ops run and print what they show."""

import doctest
import inspect
import pkgutil
from importlib import import_module

import pytest

from autoreid_fast import ops

MODULES = [info.name for info in pkgutil.walk_packages(ops.__path__, "autoreid_fast.ops.")]
WITH_EXAMPLES = [name for name in MODULES if "Examples:" in inspect.getsource(import_module(name))]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples(name: str) -> None:
    result = doctest.testmod(import_module(name))
    assert result.attempted > 0 and result.failed == 0


def test_every_public_function_has_an_example() -> None:
    functions = [name for name in ops.__all__ if inspect.isfunction(getattr(ops, name))]
    assert not [name for name in functions if "Examples:" not in (getattr(ops, name).__doc__ or "")]
