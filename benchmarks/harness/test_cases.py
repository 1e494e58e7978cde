"""The cases under pytest-benchmark, for its storage and comparison: ``pytest benchmarks --benchmark-enable``.

The samples are those of our interleaved timer. A clock that moves by one sample per round replays them to
pytest-benchmark, for ``--benchmark-save``, ``--benchmark-compare`` and histograms. Without
``--benchmark-enable`` each test only checks parity.
"""

import functools
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from .case import Case, Variant, case_names, find
from .measure import Samples, interleaved
from .parity import Prepared, bounds, candidates, prepare

SECONDS = 1.0
_now = 0.0


def replayed() -> float:
    """Clock that pytest-benchmark reads."""
    return _now


def _advance(samples: Iterator[float]) -> None:
    global _now
    _now += next(samples)


PARAMETERS = [
    pytest.param(name, index, candidate, id=f"{name}-{variant}-{candidate}".replace(" ", "-"))
    for name in case_names()
    for case in find([name])
    for index, variant in enumerate(case.variants)
    if variant.available
    for candidate in (*candidates(case, variant), *bounds(case, variant))
]


@functools.lru_cache(maxsize=1)  # the candidates of a variant follow one another
def _prepared(name: str, index: int) -> tuple[Case, Variant, Prepared]:
    [case] = find([name])
    return case, case.variants[index], prepare(case, case.variants[index])


@functools.lru_cache(maxsize=1)
def _samples(name: str, index: int) -> dict[str, Samples]:
    _, variant, prepared = _prepared(name, index)
    return interleaved(prepared.steps, variant.device, SECONDS)


@pytest.mark.benchmark(timer=replayed)
@pytest.mark.parametrize(("name", "index", "candidate"), PARAMETERS)
def test_case(name: str, index: int, candidate: str, benchmark: BenchmarkFixture) -> None:
    case, variant, prepared = _prepared(name, index)
    assert "ours" in prepared.steps, prepared.notes["ours"]
    if candidate not in prepared.steps:
        pytest.skip(prepared.notes[candidate])
    benchmark.group = f"{case.name} {variant}"
    samples = _samples(name, index)[candidate].seconds if benchmark.enabled else (0.0,)
    benchmark.pedantic(_advance, args=(iter(samples),), rounds=len(samples))
