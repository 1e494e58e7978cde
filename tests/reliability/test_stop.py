"""Signals: the first finishes the step and saves, at any step, and the run ends with the same bits."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from autoreid_fast.cli import main
from autoreid_fast.training import checkpointing
from autoreid_fast.training.epoch import Epoch

Install = Callable[[Callable[[int], None]], None]
Alike = Callable[[Path, Path], bool]
Inject = Callable[..., None]


def signal_at(step: int, number: int) -> Callable[[int], None]:
    return lambda at: os.kill(os.getpid(), number) if at == step else None


@pytest.mark.parametrize(
    ("command", "number", "status"), [("search", signal.SIGTERM, 143), ("train", signal.SIGINT, 130)]
)
def test_a_signal_at_a_step(
    command: str,
    number: int,
    status: int,
    lines: dict[str, list[str]],
    left_alone: dict[str, Path],
    ends_alike: Alike,
    one_step_at_a_time: Install,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    inject: Inject,
) -> None:
    """In the first epoch, at an epoch's last step, and in the epoch that was gone on with."""
    run = tmp_path / "run"
    steps = 3 if command == "search" else 6
    line = [*lines[command], "--run", str(run)]
    for step, done in ((1, 2), (steps - 3, steps), (1, 2)):
        one_step_at_a_time(signal_at(step, number))
        inject(f"{signal.Signals(number).name} at a step of {command}")
        assert main(line) == status
        state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
        assert len(state["losses"]) == done
        assert "autoreid-fast: interrupted; resume with --resume --run" in capsys.readouterr().err
        line = [command, "--resume", "--run", str(run)]
    one_step_at_a_time(lambda step: None)
    assert main(line) == 0
    assert ends_alike(run, left_alone[command])


def test_a_signal_in_an_evaluation(
    train_line: list[str],
    left_alone: dict[str, Path],
    ends_alike: Alike,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    inject: Inject,
) -> None:
    """It is finished and saved, and is not made again."""
    run = tmp_path / "run"
    inject("SIGTERM in an evaluation of train")
    real = Epoch.means
    with monkeypatch.context() as patch:
        patch.setattr(Epoch, "means", lambda self: (os.kill(os.getpid(), signal.SIGTERM), real(self))[1])
        assert main([*train_line, "--run", str(run)]) == 143
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    assert (state["epoch"], "losses" in state, "mAP" in state["history"][0]) == (1, False, True)
    assert main(["train", "--resume", "--run", str(run)]) == 0
    assert ends_alike(run, left_alone["train"])


def test_a_second_signal_ends_at_once(search_line: list[str], tmp_path: Path, inject: Inject) -> None:
    """Two in one step: the process dies of the second, and the step is never finished."""
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


def test_outside_the_epochs_a_signal_clears_away_what_is_half_done(
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


def test_a_long_epoch_is_saved_on_its_way(
    search_line: list[str],
    left_alone: dict[str, Path],
    ends_alike: Alike,
    one_step_at_a_time: Install,
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
    one_step_at_a_time(kill)
    with pytest.raises(Killed):
        main([*search_line, "--run", str(run)])
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    assert (state["epoch"], len(state["losses"])) == (1, 1)
    one_step_at_a_time(lambda step: None)
    assert main(["search", "--resume", "--run", str(run)]) == 0
    assert ends_alike(run, left_alone["search"])
