"""What every reader returns: the records of one data set, split for training and retrieval.

A pid means the same in every set: 1 and above is an identity, 0 a distractor (a gallery image of nobody
that is searched for) and -1 junk (a gallery image that no ranking counts), as Market-1501 has them.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from autoreid_fast.errors import AutoReIDError

DISTRACTOR = 0
JUNK = -1


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image: ``path``, a posix locator relative to the data set's root, who is on it, and the camera."""

    path: str
    pid: int
    camera: int


@dataclass(frozen=True)
class Dataset:
    """A data set as its release defines it.

    ``read_image`` decodes one record to an RGB image and raises whatever its decoder raises. ``unparsed``
    names the images that no rule of the layout explains. ``container`` is the one file that holds every
    image (CUHK03's .mat); None where an image is a file below ``root``.
    """

    name: str
    root: Path
    train: tuple[ImageRecord, ...]
    query: tuple[ImageRecord, ...]
    gallery: tuple[ImageRecord, ...]
    read_image: Callable[[ImageRecord], Image.Image]
    unparsed: tuple[str, ...] = ()
    container: Path | None = None

    def file_of(self, record: ImageRecord) -> Path:
        """The file that holds the image of ``record``."""
        return self.container or self.root / record.path

    @property
    def train_identities(self) -> int:
        """Number of identities to learn from."""
        return len(identities(self.train))

    @property
    def query_identities(self) -> int:
        """Number of identities that are searched for."""
        return len(identities(self.query))

    @property
    def cameras(self) -> int:
        """Number of cameras over all three splits."""
        return len({record.camera for split in (self.train, self.query, self.gallery) for record in split})

    def unmatched_queries(self) -> tuple[ImageRecord, ...]:
        """Queries whose identity the gallery shows from no other camera: they can have no rank."""
        seen_by = defaultdict(set)
        for record in self.gallery:
            seen_by[record.pid].add(record.camera)
        return tuple(record for record in self.query if not seen_by[record.pid] - {record.camera})


def identities(records: Iterable[ImageRecord]) -> set[int]:
    """The pids of ``records`` that are identities, neither distractors nor junk."""
    return {record.pid for record in records if record.pid > DISTRACTOR}


def split_half(records: Sequence[ImageRecord], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split ``records`` in two by image (Algorithm 1, line 1): two sorted int64 index arrays.

    Of indices, so that both halves draw from one image cache (`IdentitySampler`'s ``subset``).
    Each identity is split as evenly as can be, so that both halves hold every identity that has two
    images or more; the odd images are dealt out so that the halves differ by at most one image.
    A pure function of ``records`` and ``seed``.
    """
    random = np.random.default_rng(seed)
    labels = np.unique([record.pid for record in records], return_inverse=True)[1]
    first: list[int] = []
    second: list[int] = []
    odd: list[int] = []
    for label in range(labels.max(initial=-1) + 1):
        images = random.permutation(np.flatnonzero(labels == label)).tolist()
        half = len(images) // 2
        first += images[:half]
        second += images[half : 2 * half]
        odd += images[2 * half :]
    odd = random.permutation(np.array(odd, dtype=np.int64)).tolist()
    first += odd[: len(odd) // 2]
    second += odd[len(odd) // 2 :]
    return np.sort(np.array(first, dtype=np.int64)), np.sort(np.array(second, dtype=np.int64))


def some(names: Sequence[str], limit: int = 5) -> str:
    """The first few of ``names`` for a message, each cut at 200 characters."""
    shown = [name if len(name) <= 200 else f"{name[:200]}..." for name in names[:limit]]
    return ", ".join(shown) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def require_parsed(where: Path, unparsed: Sequence[str], parsed: int, expected: str) -> None:
    """Raise ``AutoReIDError`` where there are names and not one of them reads as ``expected``."""
    if unparsed and not parsed:
        raise AutoReIDError(f"{where}: none of {len(unparsed)} names reads as {expected}: {some(unparsed)}")
