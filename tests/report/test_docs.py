"""docs/reports.md: every command runs as written."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from autoreid_fast.cli import main

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reports.md"


@pytest.mark.usefixtures("no_files")
def test_every_command_runs(
    make_training: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("train", "resnet18", "a", "b", "c"):
        make_training(Path("runs") / name)
    lines = [
        line
        for block in re.findall(r"^```\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
        for line in block.splitlines()
    ]
    assert len(lines) == 3
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "autoreid-fast"
        assert main(arguments) == 0
    assert Path("comparison.html").is_file() and Path("runs/train/report/index.html").is_file()
