"""A killed and resumed `search` or `train` ends exactly as an uninterrupted run."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autoreid_fast.cli import main

Fork = Callable[..., Any]


def epochs_done(run: Path) -> int:
    history = run / "history.json"
    return len(json.loads(history.read_text())) if history.exists() else 0


def kill_when(process: Any, moment: Callable[[], bool]) -> None:
    """Send SIGKILL at ``moment``; a process that has already ended must have succeeded."""
    while not moment() and process.running():
        time.sleep(0.005)
    process.kill()
    status, _, errors = process.wait()
    assert status in (-signal.SIGKILL, 0), errors


def kill_and_resume(fork: Fork, line: list[str], run: Path, moments: list[Callable[[], bool]]) -> None:
    """Kill the run at each of the moments in turn, then let it finish."""
    for number, moment in enumerate(moments):
        arguments = [line[0], "--resume"] if number else line
        kill_when(fork([*arguments, "--run", run]), moment)
    assert main([line[0], "--resume", "--run", str(run)]) == 0


def assert_same_run(run: Path, other: Path) -> None:
    """Compare tensors bit for bit, and histories without the seconds."""
    for name in ("genotype.json", "metrics.json"):
        assert (run / name).exists() == (other / name).exists()
        if (run / name).exists():
            assert (run / name).read_text() == (other / name).read_text()
    one, two = (torch.load(folder / "checkpoints" / "last.pt", weights_only=True) for folder in (run, other))
    histories = [one.pop("history"), two.pop("history")]
    for history, folder in zip(histories, (run, other), strict=True):
        assert json.loads((folder / "history.json").read_text()) == history
        for record in history:
            record.pop("seconds")
    assert histories[0] == histories[1]
    assert_equal(one, two, "checkpoint")


def assert_equal(one: Any, two: Any, where: str) -> None:
    assert type(one) is type(two), where
    if isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one:
            assert_equal(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(two), where
        for index, pair in enumerate(zip(one, two, strict=True)):
            assert_equal(*pair, f"{where}[{index}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two), where
    else:
        assert one == two, where


def test_search(fork: Fork, search_line: list[str], searched: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    moments = [
        lambda: (run / "config.yaml").exists(),  # before the first epoch
        lambda: epochs_done(run) >= 1,
    ]
    kill_and_resume(fork, search_line, run, moments)
    assert_same_run(run, searched)


def test_train(fork: Fork, train_line: list[str], trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    moments = [
        lambda: any((run / "checkpoints").glob(".last.pt.*")),  # while a checkpoint is written
        lambda: epochs_done(run) >= 2,
        lambda: (run / "features" / "query.npy").exists(),  # between training and evaluation
    ]
    kill_and_resume(fork, train_line, run, moments)
    assert_same_run(run, trained)
    for name in ("query.npy", "gallery.npy", "query.csv", "gallery.csv"):
        assert (run / "features" / name).read_bytes() == (trained / "features" / name).read_bytes()


def test_two_seeds_differ(search_line: list[str], searched: Path, tmp_path: Path) -> None:
    """The comparisons above would prove nothing if all runs were equal."""
    run = tmp_path / "run"
    assert main([*search_line, "--seed", "1", "--epochs", "1", "--run", str(run)]) == 0
    alphas = [
        json.loads((folder / "history.json").read_text())[0]["alpha_normal"] for folder in (run, searched)
    ]
    assert alphas[0] != alphas[1]


def test_resuming_a_finished_run_changes_nothing(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("metrics.json", "history.json", "checkpoints/last.pt", "config.yaml")
    before = {name: (trained / name).read_bytes() for name in names}
    assert main(["train", "--resume", "--run", str(trained)]) == 0
    assert {name: (trained / name).read_bytes() for name in names} == before
    assert "rank-1" in capsys.readouterr().out


def test_a_trained_run_needs_only_its_folder_and_the_images(
    train_line: list[str], trained: Path, tmp_path: Path
) -> None:
    """It needs neither the folder of the search nor the directory it was started from."""
    copy = tmp_path / "moved"
    copy.mkdir()
    for name in ("config.yaml", "genotype.json"):
        (copy / name).write_bytes((trained / name).read_bytes())
    config = (copy / "config.yaml").read_text().replace(train_line[-1], str(tmp_path / "gone"))
    (copy / "config.yaml").write_text(config)
    (copy / "checkpoints").mkdir()
    (copy / "checkpoints" / "last.pt").write_bytes((trained / "checkpoints" / "last.pt").read_bytes())
    assert main(["train", "--resume", "--run", str(copy)]) == 0
    metrics, expected = (json.loads((run / "metrics.json").read_text()) for run in (copy, trained))
    assert metrics | {"network": None} == expected | {"network": None}


@pytest.mark.parametrize("command", ["search", "train"])
def test_invalid_resume_options(
    command: str, searched: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = (searched, trained) if command == "search" else (trained, searched)
    field = "epochs" if command == "search" else "data.height"
    config = run / "config.yaml"
    (tmp_path / "empty").mkdir()
    for arguments, message in [
        (["--run", str(run)], "already holds a run: add --resume"),
        (["--resume"], "--resume: expected --run and"),
        (
            ["--resume", "--run", str(run), f"--{field}", "200"],
            "--resume: expected --run and",
        ),
        (["--resume", f"--run={run}", "--epochs=240"], "--resume: expected --run and"),
        (
            ["--resume", "--run", str(run), "--config", str(config)],
            "--resume: expected --run and",
        ),
        (["--resume", "--run", str(tmp_path / "empty")], "holds no run"),
        (["--resume", "--run", str(tmp_path / "nothing")], "holds no run"),
        (["--resume", "--run", str(config)], "holds no run"),
        (["--resume", "--run", str(other)], f"not of `{command}`"),
    ]:
        assert main([command, *arguments]) == 2, arguments
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "nothing").exists()
