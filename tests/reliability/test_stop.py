"""Signals: the first one finishes the step and saves; resumed, the run ends with the same bits."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from autoreid_fast.cli import main
from autoreid_fast.runs.checkpoint import save_checkpoint
from autoreid_fast.training import checkpointing
from autoreid_fast.training.epoch import Epoch

Install = Callable[[Callable[[int], None]], None]
Alike = Callable[[Path, Path], bool]
Inject = Callable[..., None]


def signal_at(step: int, number: int) -> Callable[[int], None]:
    return lambda present: os.kill(os.getpid(), number) if present == step else None


@pytest.mark.parametrize(
    ("command", "number", "status"), [("search", signal.SIGTERM, 143), ("train", signal.SIGINT, 130)]
)
def test_a_signal_at_a_step(
    command: str,
    number: int,
    status: int,
    lines: dict[str, list[str]],
    undisturbed: dict[str, Path],
    same_end: Alike,
    at_each_step: Install,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    inject: Inject,
) -> None:
    """In the first epoch, in the last step of an epoch, and in a resumed epoch."""
    run = tmp_path / "run"
    steps = 3 if command == "search" else 6
    line = [*lines[command], "--run", str(run)]
    for step, done in ((1, 2), (steps - 3, steps), (1, 2)):
        at_each_step(signal_at(step, number))
        inject(f"{signal.Signals(number).name} at a step of {command}")
        assert main(line) == status
        state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
        assert len(state["losses"]) == done
        if done == steps:  # as a version wrote it that did not save the names of the losses
            del state["loss_names"]
            save_checkpoint(run / "checkpoints" / "last.pt", state)
        assert "autoreid-fast: interrupted; resume with --resume --run" in capsys.readouterr().err
        line = [command, "--resume", "--run", str(run)]
    at_each_step(lambda step: None)
    assert main(line) == 0
    assert same_end(run, undisturbed[command])


def test_a_signal_in_an_evaluation(
    train_line: list[str],
    undisturbed: dict[str, Path],
    same_end: Alike,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    inject: Inject,
) -> None:
    """The evaluation is finished and saved, and not repeated."""
    run = tmp_path / "run"
    inject("SIGTERM in an evaluation of train")
    real = Epoch.means
    with monkeypatch.context() as patch:
        patch.setattr(Epoch, "means", lambda self: (os.kill(os.getpid(), signal.SIGTERM), real(self))[1])
        assert main([*train_line, "--run", str(run)]) == 143
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    assert (state["epoch"], "losses" in state, "mAP" in state["history"][0]) == (1, False, True)
    assert main(["train", "--resume", "--run", str(run)]) == 0
    assert same_end(run, undisturbed["train"])


def test_a_second_signal_ends_at_once(search_line: list[str], tmp_path: Path, inject: Inject) -> None:
    """Two signals in one step: the second one kills the process, and the step is not finished."""
    inject("second SIGTERM in a step of search")
    program = (
        "import os, signal, sys\n"
        "from autoreid_fast.training.epoch import Epoch\n"
        "def add(self, **losses):\n"
        "    for _ in range(2): os.kill(os.getpid(), signal.SIGTERM)\n"
        "    sys.stderr.write('still here')\n"
        "Epoch.add = add\n"
        "from autoreid_fast.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    line = [sys.executable, "-c", program, *search_line, "--run", str(tmp_path / "run")]
    ended = subprocess.run(line, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert ended.returncode == -signal.SIGTERM, ended.stderr
    assert "still here" not in ended.stderr


def test_a_signal_outside_an_epoch_removes_partial_files(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inject: Inject
) -> None:
    inject("SIGTERM during cache building")

    def interrupted(*arguments: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    cache = tmp_path / "cache"
    monkeypatch.setattr("autoreid_fast.data.cache._write", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    options = [part for part in data if part not in ("--device", "cpu")]
    options[options.index("--data.cache-dir") + 1] = str(cache)
    assert main(["data", "cache", *(part.replace("--data.", "--") for part in options)]) == 143
    assert list(cache.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_long_epoch_is_saved_in_between(
    search_line: list[str],
    undisturbed: dict[str, Path],
    same_end: Alike,
    at_each_step: Install,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Killed(BaseException):
        pass

    def kill(step: int) -> None:
        if step == 4:
            raise Killed

    run = tmp_path / "run"
    monkeypatch.setattr(checkpointing, "SAVE_EVERY", 0.0)
    at_each_step(kill)
    with pytest.raises(Killed):
        main([*search_line, "--run", str(run)])
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    assert (state["epoch"], len(state["losses"])) == (1, 1)
    at_each_step(lambda step: None)
    assert main(["search", "--resume", "--run", str(run)]) == 0
    assert same_end(run, undisturbed["search"])
