"""Features of images with their labels, and the files that hold them."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import atomic_path

Split = Literal["query", "gallery"]


class LabeledFeatures(NamedTuple):
    """Features of N images with their labels.

    Attributes:
        features: (N, D) float32 or float16.
        pids: (N,) int64.
        cameras: (N,) int64, or None where cameras are not known.
        paths: the images' paths, relative to their data set.
    """

    features: np.ndarray
    pids: np.ndarray
    cameras: np.ndarray | None
    paths: list[str]


def save_features(folder: Path, split: Split, labeled: LabeledFeatures) -> None:
    """Write ``<split>.npy``, (N, D) in the dtype of the features, and ``<split>.csv``: path, pid, camera."""
    with atomic_path(folder / f"{split}.npy") as temporary, temporary.open("wb") as stream:
        np.save(stream, labeled.features)
    with (
        atomic_path(folder / f"{split}.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.writer(stream)
        columns = [labeled.paths, labeled.pids.tolist()]
        columns += [] if labeled.cameras is None else [labeled.cameras.tolist()]
        writer.writerow(("path", "pid", "camera")[: len(columns)])
        writer.writerows(zip(*columns, strict=True))


def load_features(folder: Path, split: Split) -> LabeledFeatures:
    """Read the files of `save_features`, or the same written by another tool; features are memory-mapped.

    ``<split>.npy``, or ``<split>.safetensors`` with a single tensor, holds (N, D) float32 or float16.
    ``<split>.csv`` has a column pid and, where they are known, columns camera and path.

    Raises:
        AutoReIDError: a file is missing or malformed, or their lengths differ.
    """
    features, features_path = _map_features(folder, split)
    table = folder / f"{split}.csv"
    columns, rows = _read_table(table)
    if "pid" not in columns:
        raise AutoReIDError(f"{table}: needs a header line with the columns path, pid and camera")
    if features.ndim != 2 or len(rows) != len(features):
        raise AutoReIDError(f"{table} has {len(rows)} rows, but {features_path} has shape {features.shape}")
    pids = _whole_numbers(table, rows, "pid")
    cameras = _whole_numbers(table, rows, "camera") if "camera" in columns else None
    return LabeledFeatures(features, pids, cameras, [row.get("path") or "" for row in rows])


def _map_features(folder: Path, split: Split) -> tuple[np.ndarray, Path]:
    """The features of a split, and the file that holds them."""
    array, tensors = folder / f"{split}.npy", folder / f"{split}.safetensors"
    try:
        if array.is_file():
            return np.load(array, mmap_mode="r", allow_pickle=False), array
        if tensors.is_file():
            return _only_tensor(tensors), tensors
    except AutoReIDError:
        raise
    except (ValueError, EOFError, OSError, SafetensorError) as error:
        raise AutoReIDError(f"{folder}: the features of {split} cannot be read ({error})") from None
    raise AutoReIDError(
        f"{array}: no such file, and no {tensors.name}; `autoreid-fast extract` writes features"
    )


def _only_tensor(path: Path) -> np.ndarray:
    with safe_open(path, framework="numpy") as stream:
        names = list(stream.keys())
        if len(names) != 1:
            raise AutoReIDError(f"{path} holds {len(names)} tensors ({', '.join(names)}): expected one")
        tensor: np.ndarray = stream.get_tensor(names[0])
        return tensor


def _read_table(path: Path) -> tuple[Sequence[str], list[dict[str, str]]]:
    """Column names and rows of a CSV file."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
            return reader.fieldnames or [], rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AutoReIDError(
            f"{path}: cannot be read ({error}); expected one line path,pid,camera per image"
        ) from None


def _whole_numbers(table: Path, rows: Sequence[dict[str, str]], column: str) -> np.ndarray:
    numbers = np.empty(len(rows), dtype=np.int64)
    for index, row in enumerate(rows):
        try:
            numbers[index] = int(row[column])
        except (TypeError, ValueError, OverflowError):
            raise AutoReIDError(
                f"{table}, line {index + 2}: {column} is {row[column]!r}, not a whole number"
            ) from None
    return numbers
