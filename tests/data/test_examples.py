"""The examples of the data room's docstrings run."""

import doctest
from importlib import import_module

import pytest

ROOMS = ["data.batches", "data.config", "data.load", "data.sampler", "data.synthetic.writer"]
REGISTRY = ["registry.registry", "registry.registered_config"]


@pytest.mark.parametrize("name", [*ROOMS, *REGISTRY])
def test_examples_run(name: str) -> None:
    result = doctest.testmod(import_module(f"autoreid_fast.{name}"))
    assert result.attempted
    assert not result.failed
