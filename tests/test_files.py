"""Atomic writing: whatever fails, the error names the file, and no half or temporary file stays.

And reading: of regular files only.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation.features import LabeledFeatures, load_features, save_features
from autoreid_fast.files import (
    atomic_path,
    is_stream,
    keep_as,
    require_file,
    short_name,
    write_json,
    write_text,
)
from autoreid_fast.inference.loading import load
from autoreid_fast.models.registry import build_backbone
from autoreid_fast.models.weights import load_weights
from autoreid_fast.runs.checkpoint import load_checkpoint
from autoreid_fast.schema import read_json

FAULTS = {  # function of os -> what a broken disk makes it raise
    "replace": OSError(errno.EIO, "Input/output error"),
    "fsync": OSError(errno.EIO, "Input/output error"),
    "chmod": OSError(errno.EROFS, "Read-only file system"),
}


def write_features(path: Path) -> None:
    features = np.zeros((2, 3), np.float32)
    save_features(path.parent, "query", LabeledFeatures(features, np.zeros(2, np.int64), None, ["a", "b"]))


def keep(path: Path) -> None:
    source = path.with_name("source")
    source.write_text("content")
    keep_as(source, path)


WRITERS: dict[str, Callable[[Path], None]] = {
    "file.txt": lambda path: write_text(path, "text"),
    "file.json": lambda path: write_json(path, {"a": 1}),
    "query.npy": write_features,
    "kept": keep,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("function", ["replace", "fsync", "chmod"])
def test_a_failing_disk_leaves_the_old_file_and_nothing_else(
    function: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder" / name
    path.parent.mkdir()
    path.write_text("old")

    def fail(*arguments: Any, **options: Any) -> None:
        error = FAULTS[function]
        raise OSError(error.errno, error.strerror, *(str(a) for a in arguments[:1] if isinstance(a, Path)))

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(AutoReIDError) as error:
        WRITERS[name](path)
    assert str(error.value).startswith(f"{path}: cannot be written (")
    assert path.read_text() == "old"
    assert {entry.name for entry in path.parent.iterdir()} - {"source"} == {name}


def test_a_write_that_falls_short_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy raises an OSError without a number: "2304 requested and 1152 written"."""

    def short(*arguments: Any) -> None:
        raise OSError("6 requested and 3 written")

    monkeypatch.setattr(np, "save", short)
    with pytest.raises(AutoReIDError, match=r"query\.npy: cannot be written \(6 requested .* free some"):
        write_features(tmp_path / "query.npy")
    assert list(tmp_path.iterdir()) == []


def test_errors_of_other_files_stay_as_they_are(tmp_path: Path) -> None:
    """Such as an image that is read while a cache is written."""
    with pytest.raises(FileNotFoundError, match=r"source\.png"), atomic_path(tmp_path / "cache"):
        (tmp_path / "source.png").read_bytes()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "report.json").mkdir()
    with pytest.raises(AutoReIDError, match=r"report\.json: cannot be written \(Is a directory\)"):
        write_json(tmp_path / "report.json", {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


def test_bytes_of_file_names_that_are_not_text_are_escaped(tmp_path: Path) -> None:
    write_text(tmp_path / "page.html", "caf\udce9 and café")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "caf\\udce9 and café"


def test_links_stay_and_their_files_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "real.json").write_text("old")
    for link, target in {"there.json": "disk/real.json", "new.json": "disk/new.json"}.items():
        (tmp_path / link).symlink_to(target)
        require_file(tmp_path / link)
        write_json(tmp_path / link, [1])
        assert (tmp_path / link).is_symlink()
        assert (tmp_path / target).read_text() == "[\n  1\n]\n"
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["new.json", "real.json"]


def test_a_pipe_receives_the_content(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for name in (pipe, tmp_path / "link.json"):
        if name != pipe:
            name.symlink_to(pipe)
        require_file(name)
        write_text(name, "content")
        assert os.read(reader, 100) == b"content"
    os.close(reader)
    assert pipe.is_fifo()


def test_devices_and_open_files_are_written_to(tmp_path: Path) -> None:
    write_text("/dev/null", "content")
    assert Path("/dev/null").is_char_device()
    with (tmp_path / "output").open("w+") as stream:
        stream.write("first\n")
        stream.flush()
        write_text(f"/dev/fd/{stream.fileno()}", "second\n")
        stream.seek(0)
        assert stream.read() == "first\nsecond\n"
    with pytest.raises(AutoReIDError, match="/dev/full: cannot be written"):
        write_text("/dev/full", "content")


def test_an_open_file_is_written_where_it_stands(tmp_path: Path) -> None:
    """Also through links to it: `--json link` where link -> /dev/stdout, and stdout is a file."""
    link = tmp_path / "link.json"
    with (tmp_path / "output").open("wb", buffering=0) as stream:
        (tmp_path / "folder").symlink_to("/dev/fd")
        link.symlink_to(tmp_path / "relative.json")
        (tmp_path / "relative.json").symlink_to(f"folder/{stream.fileno()}")
        for text in ("first\n", "third\n"):
            require_file(link)
            write_text(link, text)
            stream.write(b"between\n")
    assert (tmp_path / "output").read_text() == "first\nbetween\nthird\nbetween\n"
    (tmp_path / "circle").symlink_to("circle")
    assert not is_stream(tmp_path / "circle")


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    for name in ("n" * 250 + ".json", "ä" * 125 + ".json"):
        write_text(tmp_path / name, "content")
        assert (tmp_path / name).read_text() == "content"
        assert len(os.fsencode(short_name(name))) <= 200
        assert short_name(name).endswith(".json")
    assert short_name("a" * 300) != short_name("a" * 301)
    assert short_name("short.png") == "short.png"


READERS: dict[str, Callable[[Path], object]] = {
    "query.csv": lambda path: load_features(path.parent, "query"),
    "query.npy": lambda path: load_features(path.parent, "query"),
    "query.safetensors": lambda path: load_features(path.parent, "query"),
    "last.pt": load_checkpoint,
    "genotype.json": build_backbone,
    "metrics.json": lambda path: read_json(path, dict),
    "resnet18.pth": lambda path: load_weights(build_backbone("resnet18", 4), path),
    "resnet18.safetensors": lambda path: load_weights(build_backbone("resnet18", 4), path),
    "model.safetensors": load,
}


@pytest.mark.parametrize("name", READERS)
def test_only_regular_files_are_read(name: str, tmp_path: Path) -> None:
    """A pipe that nobody writes to would be waited for; a device stands for it here, and never blocks."""
    if name == "query.csv":
        np.save(tmp_path / "query.npy", np.ones((1, 2), np.float32))
    (tmp_path / name).symlink_to("/dev/null")
    with pytest.raises(AutoReIDError, match="not a regular file") as raised:
        READERS[name](tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)


@pytest.mark.parametrize("name", ["last.pt", "resnet50.pth"])
def test_results_do_not_replace_a_checkpoint(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    require_file(path)  # nothing is lost
    path.touch()
    with pytest.raises(AutoReIDError, match=rf"{name}: is a checkpoint, which the results would replace"):
        require_file(path)
