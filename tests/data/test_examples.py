"""The examples in the docstrings of data and registry; what importing data costs."""

import doctest
import subprocess
import sys
from importlib import import_module

import pytest

ROOMS = ["data.batches", "data.config", "data.load", "data.sampler", "data.synthetic.writer"]
REGISTRY = ["registry.registry", "registry.registered_config"]


@pytest.mark.parametrize("name", [*ROOMS, *REGISTRY])
def test_examples_run(name: str) -> None:
    result = doctest.testmod(import_module(f"autoreid_fast.{name}"))
    assert result.attempted
    assert not result.failed


def test_importing_the_room_imports_nothing_large() -> None:
    program = "import sys, autoreid_fast.data; print(*{'torch', 'numpy', 'pydantic'} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == ""
