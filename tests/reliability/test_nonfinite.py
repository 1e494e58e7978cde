"""A loss that is no number: said with its step and images, never saved, skipped where that is asked for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autoreid_fast.cli import main
from autoreid_fast.runs.checkpoint import load_checkpoint
from autoreid_fast.search import searcher
from autoreid_fast.training import train
from autoreid_fast.training.epoch import Epoch, NotFiniteError
from autoreid_fast.training.update import Updates

Capture = pytest.CaptureFixture[str]
Inject = Callable[..., None]


def poison(monkeypatch: pytest.MonkeyPatch, module: Any, call: int) -> None:
    """Make the loss NaN at the ``call``-th time, from 0, that ``module`` computes it."""
    real, calls = module.objective, iter(range(10**9))

    def objective(*arguments: Any) -> Any:
        loss = real(*arguments)
        return loss._replace(total=loss.total * torch.nan) if next(calls) == call else loss

    monkeypatch.setattr(module, "objective", objective)


@pytest.mark.parametrize(
    ("command", "module", "call", "title"),
    [
        ("search", searcher, 8, "omega_loss"),
        ("search", searcher, 9, "alpha_loss"),
        ("train", train, 7, "loss"),
    ],
)
def test_it_stops_with_all_that_one_needs(
    command: str,
    module: Any,
    call: int,
    title: str,
    lines: dict[str, list[str]],
    left_alone: dict[str, Path],
    ends_alike: Callable[[Path, Path], bool],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    inject: Inject,
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        poison(patch, module, call)
        inject(f"NaN loss in {command}")
        assert main([*lines[command], "--run", str(run)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(
        f"autoreid-fast: {title} is nan in epoch 2, step 2: lower the learning rate, or set"
    )
    assert (
        f"the last good checkpoint is {run / 'checkpoints' / 'last.pt'}, after epoch 1; its images: " in line
    )
    names = line.rpartition("its images: ")[2].split(", ")
    assert len(names) == (8 if command == "search" else 4)
    assert all((Path(lines[command][4]) / name).is_file() for name in names)
    assert main([command, "--resume", "--run", str(run)]) == 0  # it was the poison, not the run
    assert ends_alike(run, left_alone[command])


def test_it_is_skipped_where_asked(
    train_line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, inject: Inject
) -> None:
    run = tmp_path / "run"
    inject("NaN loss in train, skipped")
    poison(monkeypatch, train, 7)
    assert main([*train_line, "--nonfinite", "skip", "--run", str(run)]) == 0
    assert "loss is nan in epoch 2, step 2: skipped; its images: train/" in capsys.readouterr().err
    state = load_checkpoint(run / "checkpoints" / "last.pt")
    assert all(value.isfinite().all() for value in state["model"].values())


def test_a_skipped_step_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters())
    updates = Updates(model, "skip")

    def step(images: torch.Tensor) -> torch.Tensor:
        updates.begin()
        optimizer.zero_grad()
        loss = model(images).square().mean()
        loss.backward()
        return updates.take(optimizer, loss)

    assert step(torch.randn(5, 3)).isfinite()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.randn(5, 3)
    images[2, 1] = torch.inf
    assert step(images).isnan()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert step(torch.randn(5, 3)).isfinite()
    assert not torch.equal(model[0].weight, before["0.weight"])


def test_weights_that_are_not_finite_are_never_saved(
    train_line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, inject: Inject
) -> None:
    """The last step's loss is finite, what it does to the weights is not: the next loss would say so."""
    run = tmp_path / "run"
    real, steps = Updates.take, iter(range(10**9))

    def take(self: Updates, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> torch.Tensor:
        result = real(self, optimizer, loss)
        if next(steps) == 11:  # the last one of the second epoch
            optimizer.param_groups[0]["params"][0].data.fill_(torch.inf)
        return result

    monkeypatch.setattr(Updates, "take", take)
    inject("weights that are not finite, in train")
    line = [part if part != "--evaluate-every" else "--seed" for part in train_line]
    assert main([*line, "--run", str(run)]) == 2
    assert "the norm of the weights is inf after epoch 2" in capsys.readouterr().err
    assert load_checkpoint(run / "checkpoints" / "last.pt")["epoch"] == 1


def test_on_a_gpu_one_look_is_for_many_steps() -> None:
    """The first of the bad ones is named, whenever the look comes."""
    epoch = Epoch(0)
    for value in (1.0, 2.0, torch.inf, torch.nan, 3.0):
        epoch.add(loss=torch.tensor(value))
    with pytest.raises(NotFiniteError, match="loss is inf in epoch 1, step 3"):
        epoch.look()
