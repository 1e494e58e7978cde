"""Captured steps on an NVIDIA GPU equal eager ones."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from autoreid_fast.runs.checkpoint import load_checkpoint, save_checkpoint
from autoreid_fast.search.algorithm import Batch, SearchAlgorithm, build_algorithm
from autoreid_fast.search.captured import WARM_UP, CapturedStep
from autoreid_fast.search.config import SearchConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
SMALL = {"channels": 6, "cells_per_block": (1, 1, 1, 1), "embedding_dim": 16, "dropout": 0.0, "epochs": 20}
CUDA = torch.device("cuda")


def searcher(**changes: Any) -> SearchAlgorithm:
    torch.manual_seed(7)
    search = build_algorithm(SearchConfig.model_validate(SMALL | changes), 4, CUDA)
    search.set_epoch(0)
    return search


def batches(count: int) -> Iterator[tuple[Batch, Batch]]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(4).repeat_interleave(4).to(CUDA)
    colours = torch.randn(4, 3, 1, 1, generator=generator)[labels.cpu()]
    for _ in range(count):
        images = (torch.randn(2, 16, 3, 128, 32, generator=generator) + 2 * colours).to(CUDA)
        yield (images[0], labels), (images[1], labels)


def run(search: SearchAlgorithm, count: int, rates: bool = False) -> Tensor:
    losses = []
    for step, (train, val) in enumerate(batches(count)):
        if rates:
            search.set_epoch(step)
        losses.append(torch.stack(search.step(train, val)))
    return torch.stack(losses)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_captured_steps_equal_eager_steps(precision: str) -> None:
    captured, eager = searcher(precision=precision), searcher(precision=precision, execution="eager")
    assert isinstance(captured._both_steps, CapturedStep)
    losses = [run(search, WARM_UP + 5, rates=True) for search in (captured, eager)]
    tolerance = 1e-2 if precision == "float32" else 0.1
    torch.testing.assert_close(losses[0], losses[1], rtol=tolerance, atol=tolerance)
    for of_captured, of_eager in zip(captured.alpha, eager.alpha, strict=True):
        agreement = torch.isclose(of_captured, of_eager, rtol=0.05, atol=0.01).float().mean()
        assert agreement > (0.95 if precision == "float32" else 0.7)


def test_a_replay_uses_the_present_rates() -> None:
    search = searcher()
    run(search, WARM_UP + 1)
    for optimizer in (search.omega_optimizer, search.alpha_optimizer):
        optimizer.param_groups[0]["lr"].zero_()
    before = [parameter.detach().clone() for parameter in search.model.parameters()]
    run(search, 2)
    assert all(torch.equal(p, was) for p, was in zip(search.model.parameters(), before, strict=True))


def test_each_replay_draws_new_dropout_masks() -> None:
    search = searcher(dropout=0.5)
    run(search, WARM_UP + 1)
    for optimizer in (search.omega_optimizer, search.alpha_optimizer):
        optimizer.param_groups[0]["lr"].zero_()
    ((train, val),) = batches(1)
    losses = torch.stack([torch.stack(search.step(train, val)) for _ in range(6)])
    assert torch.isfinite(losses).all()
    assert losses.unique().numel() > 6


def test_replays_do_not_synchronize() -> None:
    search = searcher(dropout=0.5)
    pairs = list(batches(WARM_UP + 3))
    for train, val in pairs[:-2]:
        search.step(train, val)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for train, val in pairs[-2:]:
            search.step(train, val)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_captured_search_is_resumed(tmp_path: Path) -> None:
    def parts(search: SearchAlgorithm) -> dict[str, Any]:
        return {"model": search.model, "omega": search.omega_optimizer, "alpha": search.alpha_optimizer}

    search = searcher()
    run(search, WARM_UP + 2)
    save_checkpoint(tmp_path / "last.pt", {name: part.state_dict() for name, part in parts(search).items()})
    other = searcher()
    state = load_checkpoint(tmp_path / "last.pt")
    for name, part in parts(other).items():
        part.load_state_dict(state[name])
    other.set_epoch(0)
    losses = [run(one, WARM_UP + 2) for one in (search, other)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("changes", [{"algorithm": "gdas"}, {"order": 2, "dropout": 0.5}])
def test_steps_that_cannot_be_captured_run_eagerly(changes: dict[str, Any]) -> None:
    search = searcher(**changes)
    assert not isinstance(search._both_steps, CapturedStep)
    assert torch.isfinite(run(search, 2)).all()
