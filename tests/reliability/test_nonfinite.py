"""Losses that are NaN or infinite: reported with step and images, never saved, skipped on request."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autoreid_fast.cli import main
from autoreid_fast.losses import LossTerms
from autoreid_fast.runs.checkpoint import load_checkpoint
from autoreid_fast.search import algorithm
from autoreid_fast.training import reid
from autoreid_fast.training.epoch import Epoch, NotFiniteError
from autoreid_fast.training.step import TrainStep

Capture = pytest.CaptureFixture[str]
Inject = Callable[..., None]


def poison(monkeypatch: pytest.MonkeyPatch, module: Any, call: int) -> None:
    """Make the loss NaN in call ``call`` (from 0) of the losses that ``module`` builds."""
    build_loss, calls = module.build_loss, itertools.count()

    def build_poisoned(config: Any) -> nn.Module:
        loss: nn.Module = build_loss(config)

        def multiply(module: nn.Module, inputs: Any, losses: LossTerms) -> LossTerms:
            return losses._replace(total=losses.total * torch.nan) if next(calls) == call else losses

        loss.register_forward_hook(multiply)
        return loss

    monkeypatch.setattr(module, "build_loss", build_poisoned)


@pytest.mark.parametrize(
    ("command", "module", "call", "title"),
    [
        ("search", algorithm, 8, "omega_loss"),
        ("search", algorithm, 9, "alpha_loss"),
        ("train", reid, 7, "loss"),
    ],
)
def test_a_run_stops_and_names_step_images_and_checkpoint(
    command: str,
    module: Any,
    call: int,
    title: str,
    lines: dict[str, list[str]],
    undisturbed: dict[str, Path],
    same_end: Callable[[Path, Path], bool],
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
    assert main([command, "--resume", "--run", str(run)]) == 0  # without the poison
    assert same_end(run, undisturbed[command])


def test_a_step_is_skipped_on_request(
    train_line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, inject: Inject
) -> None:
    run = tmp_path / "run"
    inject("NaN loss in train, skipped")
    poison(monkeypatch, reid, 7)
    assert main([*train_line, "--nonfinite", "skip", "--run", str(run)]) == 0
    assert "loss is nan in epoch 2, step 2: skipped; its images: train/" in capsys.readouterr().err
    state = load_checkpoint(run / "checkpoints" / "last.pt")
    assert all(value.isfinite().all() for value in state["model"].values())


def test_a_skipped_step_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters())
    train_step = TrainStep(model, optimizer, "skip")

    def step(images: torch.Tensor) -> torch.Tensor:
        return train_step(lambda: LossTerms(model(images).square().mean(), {})).total

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
    """The loss of the last step is finite, but the weights after it are not."""
    run = tmp_path / "run"
    apply, steps = TrainStep.apply, itertools.count()

    def apply_and_break(self: TrainStep, gradients: Any) -> LossTerms:
        losses = apply(self, gradients)
        if next(steps) == 11:  # the last step of the second epoch
            self.parameters[0].data.fill_(torch.inf)
        return losses

    monkeypatch.setattr(TrainStep, "apply", apply_and_break)
    inject("weights that are not finite, in train")
    line = [part if part != "--evaluate-every" else "--seed" for part in train_line]
    assert main([*line, "--run", str(run)]) == 2
    assert "the norm of the weights is inf after epoch 2" in capsys.readouterr().err
    assert load_checkpoint(run / "checkpoints" / "last.pt")["epoch"] == 1


def test_a_check_after_many_steps_names_the_first_bad_one() -> None:
    """On a GPU losses are checked only now and then."""
    epoch = Epoch(0)
    for value in (1.0, 2.0, torch.inf, torch.nan, 3.0):
        epoch.add(loss=torch.tensor(value))
    with pytest.raises(NotFiniteError, match="loss is inf in epoch 1, step 3"):
        epoch.check_losses()
