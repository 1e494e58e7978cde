"""The examples in docstrings of models, nas and losses run."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import autoreid_fast

ROOT = Path(autoreid_fast.__file__).parent
MODULES = [
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    for room in ("losses", "models", "nas")
    for path in sorted((ROOT / room).rglob("*.py"))
    if ">>>" in path.read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    assert doctest.testmod(import_module(name)).failed == 0
