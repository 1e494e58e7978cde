"""Atomic writing: whatever fails, the error names the file, and no half or temporary file stays."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation.features import LabeledFeatures, save_features
from autoreid_fast.files import atomic_path, keep_as, write_json, write_text

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
