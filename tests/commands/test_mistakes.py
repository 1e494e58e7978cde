"""Twelve common mistakes: each error is one line that says what is wrong and what to do."""

import errno
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import autoreid_fast.runs.checkpoint as checkpoint_engine
from autoreid_fast.cli import main

Refused = Callable[..., str]

QUICK = ["--network", "resnet18", "--channels", "2", "--embedding-dim", "4", "--epochs", "2"]
QUICK += ["--decay-epochs", "1", "--batch.identities", "4"]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """The error of a command line, checked to be one line with status 2 and no other output."""

    def refused(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "Traceback" not in captured.err
        assert captured.err.count("autoreid-fast: ") == 1
        line = captured.err.splitlines()[-1]
        assert line.startswith("autoreid-fast: ")
        return line

    return refused


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    return lambda run: Path(shutil.copytree(run, tmp_path / "copy"))


def folder_of(root: Path, count: int = 4, size: tuple[int, int] = (32, 64)) -> list[str]:
    """Write a folder of ``count`` people, two cameras; return options that read it."""
    for person in range(1, count + 1):
        for camera in (1, 2):
            for shot in (0, 1):
                path = root / f"{person:03d}" / f"{camera}_{shot}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", size, (40 * person, 90 * camera, 60 * shot)).save(path)
    pattern = r"(?P<pid>\d+)/(?P<camera>\d)_\d\.png"
    return ["--data.kind", "folder", "--data.root", str(root), "--data.pattern", pattern]


def test_1_wrong_path(refused: Refused, trained: Path) -> None:
    assert "Market: no such folder; expected bounding_box_train/" in refused("train", "--data.root", "Market")
    assert "nowhere holds no run (no config.yaml in it): give the folder that --run named" in refused(
        "eval", "--run", "nowhere"
    )
    line = refused("search-gallery", "--query", "x.jpg", "--gallery", "g", "--run", "nowhere")
    assert "nowhere: no such file or folder; give a training's run folder" in line


def test_2_empty_folder(refused: Refused, tmp_path: Path, trained: Path, people: Path) -> None:
    (tmp_path / "empty").mkdir()
    empty = str(tmp_path / "empty")
    assert "no bounding_box_train" in refused("train", "--data.root", empty)
    folder = ["--data.kind", "folder", "--data.pattern", r"(?P<pid>\d+)"]
    assert "no images below it; expected a tree of images" in refused("train", *folder, "--data.root", empty)
    query = str(next((people / "query").glob("*.jpg")))
    line = refused("search-gallery", "--query", query, "--gallery", empty, "--run", str(trained))
    assert "no image below it; the gallery is a folder of images" in line


def test_3_bad_pattern(refused: Refused, tmp_path: Path) -> None:
    options = folder_of(tmp_path / "set")[:-1]
    assert r"(?P<pid>\d+: not a regular expression (missing )" in refused("train", *options, r"(?P<pid>\d+")
    line = refused("train", *options, r"(\d+)/")
    assert r"expected named groups pid and optionally camera and split, as in (?P<pid>\d+)_c" in line
    assert "none of 16 names is like data.pattern" in refused("train", *options, r"(?P<pid>[a-z]+)/")


def test_4_unknown_field_in_yaml(refused: Refused, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("epochs: 3\ndata:\n  hight: 128\n")
    assert "mine.yaml: data.hight: unknown field, did you mean height?" in refused(
        "train", "--config", str(config)
    )


def test_5_unknown_genotype_op(refused: Refused, searched: Path, tmp_path: Path, data: list[str]) -> None:
    genotype = json.loads((searched / "genotype.json").read_text())
    genotype["normal"][2][1][0] = "conv_7x7"
    (tmp_path / "mine.json").write_text(json.dumps(genotype))
    line = refused("train", *data, "--network", str(tmp_path / "mine.json"))
    message = "mine.json: genotype, normal cell, node 2: unknown operation 'conv_7x7': did you mean"
    assert message in line


def test_6_checkpoint_of_another_architecture(
    refused: Refused, trained: Path, searched: Path, copy_of: Callable[[Path], Path]
) -> None:
    run = copy_of(trained)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("channels: 4", "channels: 6"))
    line = refused("eval", "--run", str(run))
    assert "last.pt: does not fit the architecture in" in line and "restore its checkpoint" in line
    assert "size mismatch for backbone.head" in line
    assert "does not fit this run's model" in refused("train", "--resume", "--run", str(run))
    shutil.copy(searched / "checkpoints" / "last.pt", run / "checkpoints")
    assert "last.pt: does not fit the architecture in" in refused("eval", "--run", str(run))


class FullDisk(io.FileIO):
    """File on a disk with room for 1000 bytes."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def on_a_full_disk(monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """Let the disk be full for files whose temporary names contain ``ending``."""
    real = Path.open

    def opened(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        full = "w" in mode and ending in path.name
        return FullDisk(path, "w") if full else real(path, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", opened)


@pytest.mark.parametrize(("ending", "place"), [(".u8.", "cache"), ("last.pt", "run/checkpoints/last.pt")])
def test_7_no_space_left(
    ending: str,
    place: str,
    refused: Refused,
    data: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the cache or a checkpoint is written: no partial file is left."""
    line = [
        "train",
        *data,
        "--data.cache-dir",
        str(tmp_path / "cache"),
        *QUICK,
        "--run",
        str(tmp_path / "run"),
    ]
    with monkeypatch.context() as patch:
        on_a_full_disk(patch, ending)
        message = refused(*line)
    assert f"autoreid-fast: {tmp_path / place}" in message
    assert "cannot be written (No space left on device); free some space on that disk" in message
    assert not list(tmp_path.rglob("*.tmp"))
    if ending == "last.pt":
        assert main(line) == 0  # the same command works once there is room


def test_7_no_space_left_for_an_export(
    refused: Refused, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model.safetensors"
    with monkeypatch.context() as patch:
        on_a_full_disk(patch, out.name)
        message = refused("export", str(trained), "--format", "safetensors", "--out", str(out))
    assert f"{out}: cannot be written (No space left on device); free some space on that disk" in message
    assert list(tmp_path.iterdir()) == []


def test_8_read_only_run_folder(
    refused: Refused, trained: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated in mkstemp: the tests may run as root, for whom nothing is read-only."""
    run = copy_of(trained)
    real = tempfile.mkstemp

    def mkstemp(*rest: Any, dir: Any = None, **more: Any) -> Any:
        if str(dir).startswith(str(run)):
            raise PermissionError(errno.EACCES, "Permission denied", str(dir))
        return real(*rest, dir=dir, **more)

    monkeypatch.setattr(tempfile, "mkstemp", mkstemp)
    advice = "cannot be written (Permission denied); choose a folder that you can write to"
    with monkeypatch.context() as patch:
        patch.setattr("autoreid_fast.files.os.access", lambda path, mode: False)
        patch.setattr("autoreid_fast.commands.evaluate.Evaluator", None)  # the error comes before any work
        for command in ("extract", "eval"):
            assert f"{run}: {advice}" in refused(command, "--run", str(run))
    assert f"{run / 'features' / 'query.npy'}: {advice}" in refused("extract", "--run", str(run))
    assert advice in refused("export", str(run), "--format", "safetensors")
    shutil.rmtree(run)
    run.mkdir()
    assert advice in refused("train", "--run", str(run), "--data.root", "x")


def test_9_cuda_where_there_is_none(
    refused: Refused, data: list[str], trained: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gallery = ["search-gallery", "--query", "x.jpg", "--gallery", str(people), "--run", str(trained)]
    for line in (["train", *data, *QUICK], ["search", *data], ["eval", "--run", str(trained)], gallery):
        message = refused(*line, "--device", "cuda")
        assert "device is cuda, but torch finds no CUDA device: use cpu or auto" in message


def test_10_a_corrupt_image(refused: Refused, tmp_path: Path) -> None:
    options = folder_of(tmp_path / "set")
    torn = tmp_path / "set" / "002" / "1_0.png"
    torn.write_bytes(torn.read_bytes()[:40])
    line = refused("train", *options, "--data.height", "64", "--data.width", "32", *QUICK[:-1], "2")
    assert "of 8 images cannot be read, more than data.max_unreadable_share 0.01: 002/1_0.png (" in line


def test_11_a_1x1_image(refused: Refused, tmp_path: Path, trained: Path) -> None:
    options = folder_of(tmp_path / "set", size=(1, 1))
    line = refused("train", *options, "--data.height", "64", "--data.width", "32", *QUICK[:-1], "2")
    assert "1x1 pixels: expected at least 4 on each side to show a person" in line
    dot = str(tmp_path / "set" / "001" / "1_0.png")
    line = refused(
        "search-gallery", "--query", dot, "--gallery", str(tmp_path / "set"), "--run", str(trained)
    )
    assert "1_0.png: not an image that can be read (1x1 pixels: expected at least 4" in line


def test_12_an_interrupted_run(
    refused: Refused, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """Interrupted before and after the first checkpoint."""
    run = str(tmp_path / "run")
    line = ["train", *data, *QUICK, "--run", run]
    real = checkpoint_engine.save_checkpoint

    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("autoreid_fast.runs.folder.save_checkpoint", interrupt)
        assert main(line) == 130
    assert "interrupted; resume with --resume --run" in capsys.readouterr().err
    assert "already holds a run: add --resume to resume it" in refused(*line)
    assert "has not finished an epoch, resume it with --resume" in refused("eval", "--run", run)
    assert "has not finished an epoch, resume it with --resume" in refused("export", run)

    def interrupt_after(*arguments: Any) -> None:
        real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("autoreid_fast.runs.folder.save_checkpoint", interrupt_after)
        assert main(["train", "--resume", "--run", run]) == 130
    capsys.readouterr()
    assert main(["train", "--resume", "--run", run]) == 0


def test_a_demo_in_the_folder_of_a_run_is_refused(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "config.yaml").write_text("command: train\n")
    assert "holds a run of another command" in refused("demo", "--run", str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]
