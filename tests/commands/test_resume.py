"""Killed at any moment and resumed, `search` and `train` end exactly as the run that was left alone."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autoreid_fast.cli import main

Start = Callable[[list[str]], subprocess.Popen[bytes]]


def epochs_done(run: Path) -> int:
    history = run / "history.json"
    return len(json.loads(history.read_text())) if history.exists() else 0


def kill_when(process: subprocess.Popen[bytes], moment: Callable[[], bool]) -> None:
    """SIGKILL at ``moment``; a process that was faster has ended well, which is fine too."""
    while not moment() and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    error = process.communicate()[1].decode()
    assert process.returncode in (-signal.SIGKILL, 0), error


def kill_again_and_again(start: Start, line: list[str], run: Path, moments: list[Callable[[], bool]]) -> None:
    for number, moment in enumerate(moments):
        arguments = [line[0], "--resume"] if number else line
        kill_when(start([*arguments, "--run", str(run)]), moment)
    assert main([line[0], "--resume", "--run", str(run)]) == 0


def assert_same_run(run: Path, other: Path) -> None:
    """Every tensor bit for bit, and everything in the history but the seconds."""
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


def test_search(start: Start, search_line: list[str], searched: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    moments = [
        lambda: (run / "config.yaml").exists(),  # nothing done yet
        lambda: epochs_done(run) >= 1,
    ]
    kill_again_and_again(start, search_line, run, moments)
    assert_same_run(run, searched)


def test_train(start: Start, train_line: list[str], trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    moments = [
        lambda: any((run / "checkpoints").glob(".last.pt.*")),  # while a checkpoint is written
        lambda: epochs_done(run) >= 2,
        lambda: (run / "features" / "query.npy").exists(),  # between training and evaluation
    ]
    kill_again_and_again(start, train_line, run, moments)
    assert_same_run(run, trained)
    for name in ("query.npy", "gallery.npy", "query.csv", "gallery.csv"):
        assert (run / "features" / name).read_bytes() == (trained / "features" / name).read_bytes()


def test_two_seeds_differ(search_line: list[str], searched: Path, tmp_path: Path) -> None:
    """What the comparisons above would not see if runs hardly depended on their state."""
    run = tmp_path / "run"
    assert main([*search_line, "--seed", "1", "--epochs", "1", "--run", str(run)]) == 0
    alphas = [
        json.loads((folder / "history.json").read_text())[0]["alpha_normal"] for folder in (run, searched)
    ]
    assert alphas[0] != alphas[1]


def test_a_finished_run_resumes_to_itself(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("metrics.json", "history.json", "checkpoints/last.pt", "config.yaml")
    before = {name: (trained / name).read_bytes() for name in names}
    assert main(["train", "--resume", "--run", str(trained)]) == 0
    assert {name: (trained / name).read_bytes() for name in names} == before
    assert "rank-1" in capsys.readouterr().out


def test_a_trained_run_needs_nothing_outside_its_folder_but_the_images(
    train_line: list[str], trained: Path, tmp_path: Path
) -> None:
    """Neither the searched folder nor the directory it was started from."""
    copy = tmp_path / "moved"
    copy.mkdir()
    for name in ("config.yaml", "genotype.json"):
        (copy / name).write_bytes((trained / name).read_bytes())
    config = (copy / "config.yaml").read_text().replace(train_line[-1], str(tmp_path / "gone"))
    (copy / "config.yaml").write_text(config)
    (copy / "checkpoints").mkdir()
    (copy / "checkpoints" / "last.pt").write_bytes((trained / "checkpoints" / "last.pt").read_bytes())
    assert main(["train", "--resume", "--run", str(copy)]) == 0
    found, expected = (json.loads((run / "metrics.json").read_text()) for run in (copy, trained))
    assert found | {"network": None} == expected | {"network": None}


@pytest.mark.parametrize("command", ["search", "train"])
def test_what_cannot_be_resumed(
    command: str, searched: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, other = (searched, trained) if command == "search" else (trained, searched)
    field = "epochs" if command == "search" else "data.height"
    source = own / "config.yaml"
    (tmp_path / "empty").mkdir()
    for arguments, message in [
        (["--run", str(own)], "already holds a run: add --resume"),
        (["--resume"], "--resume: expected no other option"),
        (
            ["--resume", "--run", str(own), f"--{field}", "200"],
            "--resume: expected no other option",
        ),
        (["--resume", f"--run={own}", "--epochs=240"], "--resume: expected no other option"),
        (
            ["--resume", "--run", str(own), "--config", str(source)],
            "--resume: expected no other option",
        ),
        (["--resume", "--run", str(tmp_path / "empty")], "holds no run"),
        (["--resume", "--run", str(tmp_path / "nothing")], "holds no run"),
        (["--resume", "--run", str(source)], "holds no run"),
        (["--resume", "--run", str(other)], f"not of `{command}`"),
    ]:
        assert main([command, *arguments]) == 2, arguments
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "nothing").exists()
