"""Features of galleries on disk, extracted once.

A gallery is two files in the cache: the features, (N, D) float32 from byte 0, and as JSON the paths of the
images that they belong to and of the images that cannot be read, with a CRC-32 of all three. Their name holds
the fingerprint of the images and the checksum of the network: a changed gallery gets new files, and the old
ones are deleted.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
import torch

from autoreid_fast.data.batches import normalized
from autoreid_fast.data.cache import (
    BLOCK_BYTES,
    Progress,
    decode,
    default_cache_dir,
    fingerprint_of,
    require_room,
)
from autoreid_fast.data.dataset import Dataset, some
from autoreid_fast.data.readers.gallery import read_gallery
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import atomic_path, write_json
from autoreid_fast.inference.embedder import Embedder
from autoreid_fast.inference.gallery import Gallery
from autoreid_fast.schema import parse_json

log = logging.getLogger(__name__)

BATCH = 64

Unreadable = list[tuple[str, str]]
"""Path of each image that cannot be read, and the reason."""


class _Names(NamedTuple):
    """Paths of the images of a gallery, relative to its root."""

    paths: list[str]
    unreadable: Unreadable


@dataclass(frozen=True)
class _Files:
    """The files of one gallery in the cache."""

    features: Path
    names: Path


def open_gallery(
    embedder: Embedder, root: Path, cache_dir: Path | None = None, show_done: Progress | None = None
) -> Gallery:
    """Open the gallery of all images below a folder; extract its features if they are missing or stale.

    Features are stale if an image was added, removed or changed (its size or times), or if the network is
    another one; damaged ones are extracted again, too. Images that cannot be read are logged and left out.
    Features are written batch by batch and then memory-mapped.

    Args:
        embedder: the network.
        root: the folder.
        cache_dir: where to keep features; by default the cache of the package.
        show_done: called with the images done and the total number of images.

    Raises:
        AutoReIDError: no such folder, no readable image in it, or the features cannot be written.
    """
    dataset = read_gallery(root)
    folder = (cache_dir or default_cache_dir()) / "galleries"
    identity = hashlib.sha256(os.fsencode(f"{root.resolve()} {embedder.checksum}")).hexdigest()[:16]
    name = f"{identity}-{fingerprint_of(dataset, dataset.gallery)[:16]}"
    files = _Files(features=folder / f"{name}.f32", names=folder / f"{name}.json")
    dimensions = embedder.card.output.dimensions
    names = _intact_names(files, dimensions)
    if names is None:
        needed = len(dataset.gallery) * dimensions * 4
        require_room(folder, needed, "gallery's features", "set XDG_CACHE_HOME to another folder")
        names = _extract(embedder, dataset, files, show_done)
        for old in set(folder.glob(f"{identity}-*")) - {files.features, files.names}:
            old.unlink(missing_ok=True)
    if names.unreadable:
        log.warning(
            "%s: left out %d unreadable images: %s", root, len(names.unreadable), _listed(names.unreadable)
        )
    shape = (len(names.paths), dimensions)
    return Gallery(root, names.paths, np.memmap(files.features, np.float32, "c", 0, shape))


def _intact_names(files: _Files, dimensions: int) -> _Names | None:
    """The names of the images whose features are in the cache; None if a file is missing or damaged."""
    if not files.names.is_file() or not files.features.is_file():
        return None
    try:
        record = parse_json(files.names.read_text(encoding="utf-8"), str(files.names))
        names = _Names(record["paths"], [(path, reason) for path, reason in record["unreadable"]])
        complete = files.features.stat().st_size == len(names.paths) * dimensions * 4
        if complete and record["checksum"] == _checksum(files.features, names):
            return names
    except (OSError, ValueError, KeyError, TypeError):
        pass
    log.warning("%s: damaged, or of an earlier version; extracting the features again", files.features)
    return None


def _checksum(features: Path, names: _Names) -> int:
    """CRC-32 of the file of features and of the names."""
    checksum = crc32(json.dumps(names).encode())
    with features.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            checksum = crc32(block, checksum)
    return checksum


def _extract(embedder: Embedder, dataset: Dataset, files: _Files, show_done: Progress | None) -> _Names:
    paths: list[str] = []
    unreadable: Unreadable = []
    images = _readable(embedder, dataset, unreadable)
    with atomic_path(files.features) as temporary, temporary.open("wb") as stream:
        while batch := list(islice(images, BATCH)):
            paths += [path for path, _ in batch]
            pixels = torch.from_numpy(np.stack([image for _, image in batch])).to(embedder.device)
            stream.write(embedder.features(normalized(pixels)).numpy().tobytes())
            if show_done:
                show_done(len(paths) + len(unreadable), len(dataset.gallery))
        if not paths:
            raise AutoReIDError(
                f"{dataset.root}: none of {len(unreadable)} images can be read: {_listed(unreadable)}"
            )
    names = _Names(paths, unreadable)
    write_json(files.names, {**names._asdict(), "checksum": _checksum(files.features, names)})
    return names


def _readable(
    embedder: Embedder, dataset: Dataset, unreadable: Unreadable
) -> Iterator[tuple[str, np.ndarray]]:
    """Path and pixels of every image that can be read; the others are added to ``unreadable``."""
    size = (embedder.card.input.height, embedder.card.input.width)
    for record, image in zip(dataset.gallery, decode(dataset, dataset.gallery, *size), strict=True):
        if isinstance(image, str):
            unreadable.append((record.path, image))
        else:
            yield record.path, image


def _listed(unreadable: Unreadable) -> str:
    return some([f"{path} ({reason})" for path, reason in unreadable], 3)
