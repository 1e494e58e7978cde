"""Hostile files: a checkpoint, a YAML file and a list are read as data, images within limits."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from autoreid_fast.cli import main
from autoreid_fast.data.cache import open_cache
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.load import load_dataset
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.runs.checkpoint import MAGIC, TAIL

Capture = pytest.CaptureFixture[str]
Inject = Callable[..., None]


class Payload:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_a_checkpoint_with_code_in_it(
    search_line: list[str], tmp_path: Path, capsys: Capture, inject: Inject
) -> None:
    """With a valid checksum: to resume, to derive from, and as weights."""
    run, ran = tmp_path / "run", tmp_path / "ran"
    assert main([*search_line, "--epochs", "1", "--run", str(run)]) == 0
    (run / "checkpoints" / "previous.pt").unlink(missing_ok=True)
    path = run / "checkpoints" / "last.pt"
    torch.save({"format": 2, "payload": Payload(ran)}, path)
    content = path.read_bytes()
    path.write_bytes(content + TAIL.pack(zlib.crc32(content), MAGIC))
    capsys.readouterr()
    weights = ["train", *search_line[1:11], "--network", "resnet18", "--pretrained", str(path)]
    lines = [["search", "--resume", "--run", str(run)], ["derive", str(run)], weights]
    for line in lines:
        inject("checkpoint with code in it")
        assert main(line) == 2, line
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith(f"autoreid-fast: {path}: not a readable checkpoint") or "weights" in error
        assert not ran.exists()


def test_a_yaml_with_code_in_it(
    undisturbed: dict[str, Path], tmp_path: Path, capsys: Capture, inject: Inject
) -> None:
    ran = tmp_path / "ran"
    run = tmp_path / "run"
    run.mkdir()
    text = f"command: train\nepochs: !!python/object/apply:os.mkdir ['{ran}']\n"
    for path in (tmp_path / "mine.yaml", run / "config.yaml"):
        path.write_text(text)
    lines = [["train", "--config", str(tmp_path / "mine.yaml")], ["train", "--resume", "--run", str(run)]]
    for line in lines:
        inject("YAML with code in it")
        assert main(line) == 2
        error = capsys.readouterr().err
        assert ".yaml: not YAML (could not determine a constructor for the tag" in error
        assert error.count("\n") == 1
        assert not ran.exists()


@pytest.mark.parametrize(
    "path", ["../../etc/0001_000_01_passwd.jpg", "0001/../../x/0001_000_01_1.jpg", "/etc/0001_000_01_1.jpg"]
)
def test_a_list_that_points_outside_its_data_set(path: str, tmp_path: Path, inject: Inject) -> None:
    root = tmp_path / "msmt17"
    for folder in ("train", "test"):
        (root / folder / "0000").mkdir(parents=True)
    for name in ("train", "val", "query", "gallery"):
        (root / f"list_{name}.txt").write_text("0000/0000_000_01_0303morning_0015_0.jpg 0\n")
    (root / "list_query.txt").write_text(f"0000/0000_000_01_0.jpg 0\n{path} 1\n")
    inject("list that points out of its data set")
    with pytest.raises(AutoReIDError, match=r"list_query\.txt: .* lies outside of the data set") as error:
        load_dataset(DataConfig(kind="msmt17", root=root))
    assert "\n" not in str(error.value)


def png(width: int, height: int, pixels: bytes) -> bytes:
    """A PNG whose header states this size, whatever its pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


def hostile_images() -> dict[str, tuple[bytes, str]]:
    """Contents and error message, by name."""
    zeros = bytes(1 << 20)
    return {
        "bomb": (png(60_000, 60_000, zeros), "DecompressionBombError: "),
        "below_the_limit_but_empty": (png(9_000, 9_000, zeros), "OSError: "),
        "truncated": (png(64, 64, zeros)[:60], "OSError: "),
        "text": (b"#!/bin/sh\nrm -rf /\n", "UnidentifiedImageError: "),
        "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "UnidentifiedImageError: "),
        "nothing": (b"", "UnidentifiedImageError: "),
    }


def test_hostile_images(tmp_path: Path, inject: Inject) -> None:
    """Each is named with its reason and left out; no bomb is decoded and no program started."""
    root = tmp_path / "set"
    for split in ("train", "query", "gallery"):
        (root / split).mkdir(parents=True)
        for shot in range(10):
            Image.fromarray(np.full((8, 8, 3), shot, np.uint8)).save(root / split / f"1_1_{shot}.png")
    images = hostile_images()
    for name, (content, _) in images.items():
        inject("image that means harm")
        (root / "train" / f"1_1_{name}.png").write_bytes(content)
    pattern = r"(?P<split>\w+)/(?P<pid>\d)_(?P<camera>\d)"
    dataset = load_dataset(DataConfig(kind="folder", root=root, pattern=pattern))
    cache = open_cache(dataset, dataset.train, 8, 8, tmp_path / "cache", 0.5)
    assert len(cache.records) == 10
    reasons = dict(cache.unreadable)
    for name, (_, reason) in images.items():
        assert reasons[f"train/1_1_{name}.png"].startswith(reason), reasons
    with pytest.raises(AutoReIDError, match=r"6 of 16 images cannot be read"):
        open_cache(dataset, dataset.train, 8, 8, tmp_path / "cache", 0.1)
