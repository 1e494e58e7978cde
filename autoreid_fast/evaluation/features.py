"""Features of images: extraction, and the files that hold them with their labels."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from autoreid_fast.data.batches import EvalBatches
from autoreid_fast.data.cache import ImageCache
from autoreid_fast.distributed.collectives import gather_from_processes
from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import atomic_path
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.models.retrieval import RetrievalNetwork
from autoreid_fast.progress import progress_bar

Split = Literal["query", "gallery"]


class LabeledFeatures(NamedTuple):
    """Features and what is known of the images, one row an image.

    Attributes:
        features: (N, D) float32. pids: (N,) int64.
        cameras: (N,) int64, or None where cameras are not known.
        paths: the N images' locators.
    """

    features: np.ndarray
    pids: np.ndarray
    cameras: np.ndarray | None
    paths: list[str]


@torch.no_grad()
def extract_features(
    model: ReIDNetwork, cache: ImageCache, device: torch.device, batch_size: int = 64
) -> LabeledFeatures:
    """L2-normalised descriptors (f, but for tails of strips) of every cached image, in eval mode.

    Several processes share the batches, and each has the features of all.
    """
    training = model.training
    network = RetrievalNetwork(model).eval()
    batches = EvalBatches(cache, batch_size, device, current_shard())
    rows: list[torch.Tensor] = []
    with progress_bar("extracting features") as show_done:
        for images in batches:
            rows.append(network(images).cpu())
            show_done(len(rows), len(batches))
    model.train(training)
    rows = [each for process in gather_from_processes(rows) for each in process]
    pids = np.array([record.pid for record in cache.records], dtype=np.int64)
    cameras = np.array([record.camera for record in cache.records], dtype=np.int64)
    return LabeledFeatures(torch.cat(rows).numpy(), pids, cameras, [record.path for record in cache.records])


def save_features(folder: Path, split: Split, labeled: LabeledFeatures) -> None:
    """Write ``<split>.npy`` (N, D), in the features' own type, and ``<split>.csv``: path, pid, camera."""
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
    """Read what ``save_features`` wrote, or the like made by another tool; the features are memory-mapped.

    ``<split>.npy``, or ``<split>.safetensors`` with one tensor in it, holds (N, D) float32 or float16;
    ``<split>.csv`` has the columns pid and, where they are known, camera and path.

    Raises:
        AutoReIDError: a file is missing or malformed, or their lengths differ.
    """
    table = folder / f"{split}.csv"
    features, source = _map_features(folder, split)
    try:
        with table.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
            columns = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AutoReIDError(
            f"{table}: cannot be read ({error}); it holds a line path,pid,camera an image"
        ) from None
    if "pid" not in columns:
        raise AutoReIDError(f"{table}: needs a header line with the columns path, pid and camera")
    if features.ndim != 2 or len(rows) != len(features):
        raise AutoReIDError(f"{table} has {len(rows)} rows, but {source} has shape {features.shape}")
    cameras = _whole_numbers(table, rows, "camera") if "camera" in columns else None
    paths = [row.get("path") or "" for row in rows]
    return LabeledFeatures(features, _whole_numbers(table, rows, "pid"), cameras, paths)


def _map_features(folder: Path, split: Split) -> tuple[np.ndarray, Path]:
    array, tensors = folder / f"{split}.npy", folder / f"{split}.safetensors"
    try:
        if array.is_file():
            return np.load(array, mmap_mode="r", allow_pickle=False), array
        if tensors.is_file():
            with safe_open(tensors, framework="numpy") as stream:
                names = list(stream.keys())
                if len(names) != 1:
                    raise AutoReIDError(
                        f"{tensors} holds {len(names)} tensors ({', '.join(names)}): needs just one"
                    )
                return stream.get_tensor(names[0]), tensors
    except (ValueError, EOFError, OSError, SafetensorError) as error:
        if isinstance(error, AutoReIDError):
            raise
        raise AutoReIDError(f"{folder}: the features of {split} cannot be read ({error})") from None
    raise AutoReIDError(
        f"{array}: no such file, and no {tensors.name}; `autoreid-fast extract` writes features"
    )


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
