"""A file of results that cannot be written is refused before the work, by every command that writes one."""

from pathlib import Path

import pytest

from autoreid_fast.cli import main

COMMANDS = [
    "parity --json",
    "bench --json",
    "eval --features nowhere --json",
    "rank nowhere --json",
    "derive nowhere --out",
    "compare nowhere nowhere --out",
    "search-gallery --query nowhere --gallery nowhere --model nowhere --page",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), str(tmp_path)]) == 2
    assert f"{tmp_path}: is a folder; give the name of a file, such as {tmp_path}/" in capsys.readouterr().err


@pytest.mark.parametrize("command", [*COMMANDS, "profile --out"])
def test_below_a_file(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.touch()
    assert main([*command.split(), str(file / "results")]) == 2
    assert f"{file}" in (line := capsys.readouterr().err) and "cannot be written" in line


def test_a_folder_named_like_an_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.onnx").mkdir()
    assert main(["export", "nowhere", "--out", str(tmp_path / "model.onnx")]) == 2
    assert "model.onnx: is a folder" in capsys.readouterr().err


def test_devices_and_new_folders_are_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for out in ("/dev/null", str(tmp_path / "new" / "folder" / "genotype.json")):
        assert main(["derive", "nowhere", "--out", out]) == 2
        assert "nowhere holds no run" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS[2:])
def test_a_command_that_fails_leaves_no_folder(command: str, tmp_path: Path) -> None:
    assert main([*command.split(), str(tmp_path / "new" / "folder" / "results")]) == 2
    assert list(tmp_path.iterdir()) == []
