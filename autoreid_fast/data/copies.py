"""Images that are in both train and test, under any name: files with the same bytes."""

import hashlib
import os
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from stat import S_ISREG

from autoreid_fast.data.dataset import Dataset

SAMPLE_BYTES = 4096
"""Bytes from the middle of a file that are compared before all of it is read."""
CHUNK = 256
"""Files per task of a thread: starting a task takes longer than reading a small file."""


def copies_in_both(dataset: Dataset) -> dict[str, str]:
    """Find the training images whose files have the same bytes as those of queries or gallery images.

    Files are read in part if their sizes occur in both, and as a whole if the parts do too. Files that are
    missing or empty are not compared. Where one file holds all images, their names in it are.

    Returns:
        Path of an image to test on, by the path of its copy to train on.
    """
    train = {record.path for record in dataset.train}
    test = {record.path for record in (*dataset.query, *dataset.gallery)}
    if dataset.container:
        return {path: path for path in sorted(train & test)}
    content: dict[str, Hashable] = {}
    for fingerprint in (_size, _sample, _digest):
        content = _fingerprints(dataset.root, train | test, fingerprint)
        both = {content[path] for path in train} & {content[path] for path in test} - {None}
        train, test = ({path for path in side if content[path] in both} for side in (train, test))
    copies = {content[path]: path for path in sorted(test, reverse=True)}
    return {path: copies[content[path]] for path in sorted(train)}


def _fingerprints(
    root: Path, paths: set[str], fingerprint: Callable[[Path], Hashable]
) -> dict[str, Hashable]:
    """Compute a fingerprint of each file; None for one that cannot be read."""

    def one(path: str) -> Hashable:
        try:
            return fingerprint(root / path)
        except (OSError, ValueError):  # a ValueError: a reader's own name that no file can have
            return None

    names = list(paths)
    chunks = [names[start : start + CHUNK] for start in range(0, len(names), CHUNK)]
    with ThreadPoolExecutor() as pool:  # network disks answer several at once
        found = pool.map(lambda chunk: [one(path) for path in chunk], chunks)
        return dict(zip(names, chain.from_iterable(found), strict=True))


def _size(file: Path) -> int | None:
    """Bytes of a regular file that is not empty; a pipe would be waited for."""
    status = file.stat()
    return status.st_size or None if S_ISREG(status.st_mode) else None


def _sample(file: Path) -> Hashable:
    with file.open("rb", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        stream.seek(max(0, size - SAMPLE_BYTES) // 2)
        return size, hashlib.sha256(stream.read(SAMPLE_BYTES)).digest()


def _digest(file: Path) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
