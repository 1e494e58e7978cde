"""A process that decodes images dies: a one-line error, and the run resumes."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoreid_fast.cli import main
from autoreid_fast.data import image_folder


def test_a_data_worker_that_dies(
    people: Path,
    same_end: Callable[[Path, Path], bool],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    inject: Callable[..., None],
) -> None:
    root = tmp_path / "classes"
    for split, source in (("train", "train"), ("val", "query")):
        for path in sorted((people / source).iterdir()):
            label = root / split / f"camera{path.stem.split('_')[1]}"
            label.mkdir(parents=True, exist_ok=True)
            (label / path.name).symlink_to(path)
    size = ["--height", "64", "--width", "32", "--batch-size", "8", "--channels", "2", "--epochs", "2"]
    line = ["pretrain", "--root", str(root), *size, "--network", "resnet18", "--device", "cpu"]
    alone, run = tmp_path / "alone", tmp_path / "run"
    assert main([*line, "--workers", "0", "--run", str(alone)]) == 0
    real = image_folder._Decoder.__getitem__

    def killed(self: Any, place: tuple[int, int]) -> Any:
        if place[0] == 1 and os.getpid() != tests:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, place)

    tests = os.getpid()
    inject("data worker killed")
    with monkeypatch.context() as patch:
        patch.setattr(image_folder._Decoder, "__getitem__", killed)
        assert main([*line, "--workers", "1", "--run", str(run)]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("autoreid-fast: a process that decodes images died (DataLoader worker (pid")
    assert "resume the run with --resume" in message
    assert main(["pretrain", "--resume", "--run", str(run)]) == 0
    assert same_end(run, alone)
