"""Search a folder of images: its features, extracted once and kept on disk, and who is nearest to a query.

In the cache a gallery is two files: the features, (N, D) float32 from byte 0, and as JSON the names of the
images that are in it and of those that cannot be read. Their own name holds the fingerprint of the images and
the checksum of the network: a gallery that has changed is another pair, and the old one is deleted.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from autoreid_fast import ops
from autoreid_fast.data.batches import normalized
from autoreid_fast.data.cache import Progress, decode, default_cache_dir, fingerprint_of, require_room
from autoreid_fast.data.dataset import Dataset, some
from autoreid_fast.data.gallery import read_gallery
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import atomic_path, write_json
from autoreid_fast.inference.embedder import Embedder

log = logging.getLogger(__name__)

BATCH = 64
ROWS_AT_ONCE = 65536  # of the features, which are memory-mapped


@dataclass(frozen=True)
class Gallery:
    """The readable images below ``root``: ``paths`` (N, relative to it) and ``features``, (N, D) float32."""

    root: Path
    paths: list[str]
    features: np.ndarray

    def nearest(self, feature: torch.Tensor, top: int, but: Path | None = None) -> list[tuple[float, str]]:
        """The ``top`` images nearest to a feature (D,): Euclidean distance and path, nearest first.

        ``but``: a file that is left out where it is one of them, as a query that lies in its own gallery.

        Raises:
            AutoReIDError: ``top`` is not from 1 to 999.
        """
        if not 1 <= top < ops.MAX_NEAREST:
            raise AutoReIDError(f"top {top}: from 1 to {ops.MAX_NEAREST - 1}")
        found: list[tuple[float, int]] = []
        for start in range(0, len(self.paths), ROWS_AT_ONCE):
            rows = torch.from_numpy(self.features[start : start + ROWS_AT_ONCE])
            distances, indices = ops.nearest(feature[None], rows, min(top + 1, len(rows)))
            found += zip(distances[0].tolist(), (start + indices[0]).tolist(), strict=True)
            found = sorted(found)[: top + 1]
        own = but.resolve() if but else None
        named = [(distance, self.paths[index]) for distance, index in found]
        return [(distance, path) for distance, path in named if (self.root / path).resolve() != own][:top]


def open_gallery(
    embedder: Embedder, root: Path, cache_dir: Path | None = None, show_done: Progress | None = None
) -> Gallery:
    """The gallery of all images below ``root``, extracted where its features are absent or stale.

    Stale: an image was added, removed or changed (size, modification time), or the network is another.
    Images that cannot be read are named and left out. Memory: some batches of images; the features are
    written as they come and memory-mapped.

    Raises:
        AutoReIDError: no such folder, no readable image in it, no place or no room for the features.
    """
    dataset = read_gallery(root)
    folder = (cache_dir or default_cache_dir()) / "galleries"
    place = hashlib.sha256(f"{root.resolve()} {embedder.checksum}".encode()).hexdigest()[:16]
    fingerprint = fingerprint_of(dataset, dataset.gallery)[:16]
    features, names = (folder / f"{place}-{fingerprint}{suffix}" for suffix in (".f32", ".json"))
    dimensions = embedder.card.output.dimensions
    gallery = _open(root, features, names, dimensions)
    if gallery is None:
        needed = len(dataset.gallery) * dimensions * 4
        require_room(folder, needed, "gallery's features", "set XDG_CACHE_HOME to another folder")
        _extract(embedder, dataset, features, names, show_done)
        for old in set(folder.glob(f"{place}-*")) - {features, names}:
            old.unlink(missing_ok=True)
        gallery = _open(root, features, names, dimensions)
        assert gallery is not None
    unreadable = json.loads(names.read_text(encoding="utf-8"))["unreadable"]
    if unreadable:
        named = some([f"{path} ({reason})" for path, reason in unreadable], 3)
        log.warning("%s: left out %d unreadable images: %s", root, len(unreadable), named)
    return gallery


def _open(root: Path, features: Path, names: Path, dimensions: int) -> Gallery | None:
    """The gallery in the cache; None where it is not there, or not whole."""
    try:
        paths = json.loads(names.read_text(encoding="utf-8"))["paths"]
        if features.stat().st_size != len(paths) * dimensions * 4:
            return None
        return Gallery(root, paths, np.memmap(features, np.float32, "c", 0, (len(paths), dimensions)))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _extract(
    embedder: Embedder, dataset: Dataset, features: Path, names: Path, show_done: Progress | None
) -> None:
    paths: list[str] = []
    unreadable: list[tuple[str, str]] = []
    with atomic_path(features) as temporary, temporary.open("wb") as stream:
        for images in _batches(embedder, dataset, paths, unreadable):
            stream.write(embedder.features(images).numpy().tobytes())
            if show_done:
                show_done(len(paths) + len(unreadable), len(dataset.gallery))
        if not paths:
            named = some([f"{path} ({reason})" for path, reason in unreadable], 3)
            raise AutoReIDError(f"{dataset.root}: none of {len(unreadable)} images can be read: {named}")
    write_json(names, {"paths": paths, "unreadable": unreadable})


def _batches(
    embedder: Embedder, dataset: Dataset, paths: list[str], unreadable: list[tuple[str, str]]
) -> Iterator[torch.Tensor]:
    """Normalised batches of what can be read; ``paths`` and ``unreadable`` grow as they come."""
    size = (embedder.card.input.height, embedder.card.input.width)
    waiting: list[np.ndarray] = []
    for record, image in zip(dataset.gallery, decode(dataset, dataset.gallery, *size), strict=True):
        if isinstance(image, str):
            unreadable.append((record.path, image))
            continue
        paths.append(record.path)
        waiting.append(image)
        if len(waiting) == BATCH:
            yield normalized(torch.from_numpy(np.stack(waiting)).to(embedder.device))
            waiting = []
    if waiting:
        yield normalized(torch.from_numpy(np.stack(waiting)).to(embedder.device))
