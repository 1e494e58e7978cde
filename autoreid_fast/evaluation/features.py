"""Features of images with their labels, and the files that hold them."""

import csv
import logging
import re
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from autoreid_fast.data.dataset import some
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation.inputs import HIGHEST, LOWEST, label_of
from autoreid_fast.files import atomic_path, require_regular

log = logging.getLogger(__name__)

Split = Literal["query", "gallery"]

FIELDS = {
    "path": "paths",
    "pid": "pids",
    "camera": "cameras",
    "pid_name": "pid_names",
    "camera_name": "camera_names",
}
"""Columns of a table, and the fields of `LabeledFeatures` that they hold."""
ALIASES = {
    "pid": {"pid", "id", "personid", "identity", "identityid", "person", "label"},
    "camera": {"camera", "cam", "camid", "cameraid", "camno"},
    "path": {"path", "file", "filename", "filepath", "image", "imagepath", "imgpath", "impath"},
}
"""Names of the columns in lower case, without blanks, dashes and underscores."""


class LabeledFeatures(NamedTuple):
    """Features of N images with their labels.

    Attributes:
        features: (N, D) float32 or float16.
        pids: (N,) int64; or text, where a table of another tool has names.
        cameras: (N,) int64 or text, or None where cameras are not known.
        paths: the images' paths, relative to their data set.
        pid_names: names of the N images' people, where their pids are only numbers of these.
        camera_names: names of their cameras, where these are numbered.
    """

    features: np.ndarray
    pids: np.ndarray
    cameras: np.ndarray | None
    paths: list[str]
    pid_names: list[str] | None = None
    camera_names: list[str] | None = None


def save_features(folder: Path, split: Split, labeled: LabeledFeatures) -> None:
    """Write ``<split>.npy``, (N, D) in the dtype of the features, and ``<split>.csv``.

    Columns of the table are path, pid and camera, and where people or cameras have names that are not these
    numbers, pid_name and camera_name.
    """
    with atomic_path(folder / f"{split}.npy") as temporary, temporary.open("wb") as stream:
        np.save(stream, labeled.features)
    columns = {name: getattr(labeled, field) for name, field in FIELDS.items()}
    columns = {name: values for name, values in columns.items() if values is not None}
    with (
        atomic_path(folder / f"{split}.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def load_features(folder: Path, split: Split) -> LabeledFeatures:
    """Read the files of `save_features`, or the same written by another tool; features are memory-mapped.

    ``<split>.npy``, or ``<split>.safetensors`` with a single tensor, holds (N, D) float32 or float16
    (in safetensors also bfloat16).
    ``<split>.csv`` has a column pid and, where they are known, columns camera and path; `ALIASES` lists other
    names of them. Other columns are logged and not read. Whole numbers go by their value, other labels are
    names (`label_of`).

    Raises:
        AutoReIDError: a file is missing or malformed, or their lengths differ.
    """
    features, features_path = _map_features(folder, split)
    table = folder / f"{split}.csv"
    columns, rows = _read_table(table)
    known = _known_columns(table, columns)
    if features.ndim != 2 or len(rows) != len(features):
        raise AutoReIDError(f"{table} has {len(rows)} rows, but {features_path} has shape {features.shape}")
    pids = _labels(table, rows, known["pid"])
    cameras = _labels(table, rows, known["camera"]) if "camera" in known else None
    paths = [row[known["path"]] or "" for row in rows] if "path" in known else [""] * len(rows)
    return LabeledFeatures(features, pids, cameras, paths)


def _known_columns(table: Path, columns: Sequence[str]) -> dict[str, str]:
    """The column of the table that holds pid, camera and path; the last two may be missing."""
    known: dict[str, str] = {}
    ignored = []
    for column in columns:
        plain = re.sub(r"[ _-]", "", (column or "").lower())
        field = next((name for name, aliases in ALIASES.items() if plain in aliases), None)
        if field in known:
            raise AutoReIDError(f"{table}: {known[field]} and {column} both mean {field}; keep one column")
        if field is not None:
            known[field] = column
        elif column not in FIELDS or column.removesuffix("_name") not in columns:
            ignored.append(repr(column))
    if "pid" not in known:
        raise AutoReIDError(
            f"{table}: needs a header line with a column pid, and optionally path and camera; it has "
            f"{some([*map(repr, columns)]) or 'no columns'}"
        )
    if ignored:
        log.warning("%s: columns that are not read: %s", table, some(ignored))
    return known


def _map_features(folder: Path, split: Split) -> tuple[np.ndarray, Path]:
    """The features of a split, and the file that holds them."""
    array, tensors = folder / f"{split}.npy", folder / f"{split}.safetensors"
    if array.is_file() and tensors.is_file():
        raise AutoReIDError(f"{folder} has both {array.name} and {tensors.name}; keep one of them")
    try:
        for path in (array, tensors):
            require_regular(path)
        if array.exists():
            return np.lib.format.open_memmap(array, mode="r"), array
        if tensors.exists():
            return _only_tensor(tensors), tensors
    except AutoReIDError:
        raise
    except Exception as error:  # damaged headers raise errors of many types
        raise AutoReIDError(f"{folder}: the features of {split} cannot be read ({error})") from None
    raise AutoReIDError(
        f"{array}: no such file, and no {tensors.name}; `autoreid-fast extract` writes features"
    )


def _only_tensor(path: Path) -> np.ndarray:
    with safe_open(path, framework="pt") as stream:
        names = list(stream.keys())
        if len(names) != 1:
            raise AutoReIDError(f"{path} holds {len(names)} tensors ({', '.join(names)}): expected one")
        tensor: Tensor = stream.get_tensor(names[0])
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _read_table(path: Path) -> tuple[Sequence[str], list[dict[str, str]]]:
    """Column names and rows of a CSV file."""
    try:
        require_regular(path)
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
            lines = [line for line in csv.reader(stream) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AutoReIDError(
            f"{path}: cannot be read ({error}); expected one line path,pid,camera per image"
        ) from None
    header, *rows = lines or [[]]
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise AutoReIDError(
                f"{path}, line {number}: expected {len(header)} fields, as the header has; got {len(row)}; a "
                "field that contains a comma needs quotes"
            )
    return header, [dict(zip(header, row, strict=True)) for row in rows]


def _labels(table: Path, rows: Sequence[dict[str, str]], column: str) -> np.ndarray:
    """(N,) int64, or text if there are names or larger numbers."""
    labels = []
    for index, row in enumerate(rows):
        try:
            labels.append(label_of(row[column] or ""))
        except ValueError as error:
            shown = reprlib.repr(row[column])
            raise AutoReIDError(
                f"{table}, line {index + 2}: {column} is {shown}: {error}; expected a whole number or a name"
            ) from None
    if all(isinstance(label, int) and LOWEST <= label <= HIGHEST for label in labels):
        return np.array(labels, dtype=np.int64)
    return np.array([str(label) for label in labels])
