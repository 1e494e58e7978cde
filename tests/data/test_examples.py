"""The examples of the data room's docstrings run."""

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize(
    "name",
    [
        "data",
        "data.batches",
        "data.sampler",
        "data.synthetic.writer",
        "registry.registry",
        "registry.registered_config",
    ],
)
def test_examples_run(name: str) -> None:
    result = doctest.testmod(import_module(f"autoreid_fast.{name}"))
    assert result.attempted
    assert not result.failed
