"""Images that two sets of records share, under any name: files with the same bytes."""

import hashlib
import os
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from stat import S_ISREG

from autoreid_fast.data.dataset import Dataset, ImageRecord

SAMPLE_BYTES = 4096
"""Bytes from the middle of a file that are compared before all of it is read."""
CHUNK = 256
"""Files per task of a thread: starting a task takes longer than reading a small file."""


def copies_in_both(dataset: Dataset) -> dict[str, str]:
    """Find the training images that are copies of queries or gallery images.

    Returns:
        Path of an image to test on, by the path of its copy to train on.
    """
    return copies_of(dataset, dataset.train, dataset, (*dataset.query, *dataset.gallery))


def copies_of(
    dataset: Dataset, records: Sequence[ImageRecord], other: Dataset, others: Sequence[ImageRecord]
) -> dict[str, str]:
    """Find those of ``records`` whose files have the same bytes as those of ``others``.

    Files are read in part if their sizes occur in both, and as a whole if the parts do too. Files that are
    missing or empty are not compared. Where one file holds all images, their names in it are.

    Args:
        dataset: Data set of ``records``.
        records: Images to look for.
        other: Data set of ``others``, which may be the same.
        others: Images to look among.

    Returns:
        Path of one of ``others``, by the path of its copy in ``records``.
    """
    if dataset.container or other.container:
        places = [None if one.container is None else one.container.resolve() for one in (dataset, other)]
        same = places[0] == places[1]
        names = {record.path for record in records} & {record.path for record in others} if same else set()
        return {name: name for name in sorted(names)}
    left = {dataset.root / record.path: record.path for record in records}
    right = {other.root / record.path: record.path for record in others}
    files, other_files = set(left), set(right)
    content: dict[Path, Hashable] = {}
    for fingerprint in (_size, _sample, _digest):
        content = _fingerprints(files | other_files, fingerprint)
        both = {content[file] for file in files} & {content[file] for file in other_files} - {None}
        files, other_files = (
            {file for file in side if content[file] in both} for side in (files, other_files)
        )
    copies = {content[file]: right[file] for file in sorted(other_files, reverse=True)}
    return {left[file]: copies[content[file]] for file in sorted(files)}


def _fingerprints(files: set[Path], fingerprint: Callable[[Path], Hashable]) -> dict[Path, Hashable]:
    """Compute a fingerprint of each file; None for one that cannot be read."""

    def one(file: Path) -> Hashable:
        try:
            return fingerprint(file)
        except (OSError, ValueError):  # a ValueError: a reader's own name that no file can have
            return None

    listed = list(files)
    chunks = [listed[start : start + CHUNK] for start in range(0, len(listed), CHUNK)]
    with ThreadPoolExecutor() as pool:  # network disks answer several at once
        found = pool.map(lambda chunk: [one(file) for file in chunk], chunks)
        return dict(zip(listed, chain.from_iterable(found), strict=True))


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
