"""Data sets: the records of one data set, split for training and retrieval.

A pid means the same in every data set, as in Market-1501: 1 and above is an identity, 0 a distractor (a
gallery image of somebody whom no query shows) and -1 junk (a gallery image that rankings leave out).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from autoreid_fast.errors import AutoReIDError, printable

DISTRACTOR = 0
JUNK = -1


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image.

    Attributes:
        path: Posix path relative to the data set's root, or a name that its ``read_image`` understands.
        pid: Identity that it shows; 0 is a distractor, -1 junk.
        camera: Number of the camera.
    """

    path: str
    pid: int
    camera: int


@dataclass(frozen=True)
class Dataset:
    """A data set as its release defines it.

    Attributes:
        name: For messages and the names of cache files.
        root: Folder of the data set.
        train: Records to train on.
        query: Records to search for.
        gallery: Records to search in.
        read_image: Decodes one record to an RGB image; may raise any exception.
        unparsed: Names of images that do not follow the layout.
        container: The one file that holds all images (CUHK03's .mat); None if each image is a file.
        one_numbering: Whether a pid means the same person in training and test; MSMT17 numbers each from 0.
        pid_names: Names of the people, where pids only number them.
        camera_names: Names of the cameras, where these are numbered.
    """

    name: str
    root: Path
    train: tuple[ImageRecord, ...]
    query: tuple[ImageRecord, ...]
    gallery: tuple[ImageRecord, ...]
    read_image: Callable[[ImageRecord], Image.Image]
    unparsed: tuple[str, ...] = ()
    container: Path | None = None
    one_numbering: bool = True
    pid_names: Mapping[int, str] = field(default_factory=dict)
    camera_names: Mapping[int, str] = field(default_factory=dict)

    def file_of(self, record: ImageRecord) -> Path:
        """Return the file that holds the image of ``record``."""
        return self.container or self.root / record.path

    @property
    def train_identities(self) -> int:
        """Number of identities to train on."""
        return len(identities(self.train))

    @property
    def query_identities(self) -> int:
        """Number of identities among the queries."""
        return len(identities(self.query))

    @property
    def cameras(self) -> int:
        """Number of cameras over all three splits."""
        return len({record.camera for split in (self.train, self.query, self.gallery) for record in split})

    def trained_and_tested(self) -> set[int]:
        """Return the identities that are in both train and test, which the protocol keeps apart."""
        if not self.one_numbering:
            return set()
        return identities(self.train) & identities((*self.query, *self.gallery))

    def unmatched_queries(self) -> tuple[ImageRecord, ...]:
        """Return the queries without a match: no other camera of the gallery shows their identity."""
        seen_by = defaultdict(set)
        for record in self.gallery:
            seen_by[record.pid].add(record.camera)
        return tuple(record for record in self.query if not seen_by[record.pid] - {record.camera})


def identities(records: Iterable[ImageRecord]) -> set[int]:
    """Return the pids of ``records`` without distractors and junk."""
    return {record.pid for record in records if record.pid > DISTRACTOR}


def split_half(records: Sequence[ImageRecord], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split ``records`` into two halves by image (Algorithm 1, line 1): sorted int64 indices of each.

    Indices let both halves draw from one image cache (`IdentitySampler`'s ``subset``). Each identity is
    split as evenly as possible, so that both halves have every identity with two images or more; leftover
    images are distributed so that the halves differ by at most one image. A pure function of ``records``
    and ``seed``.
    """
    random = np.random.default_rng(seed)
    labels = np.unique([record.pid for record in records], return_inverse=True)[1]
    first: list[int] = []
    second: list[int] = []
    leftover: list[int] = []
    for label in range(labels.max(initial=-1) + 1):
        images = random.permutation(np.flatnonzero(labels == label)).tolist()
        half = len(images) // 2
        first += images[:half]
        second += images[half : 2 * half]
        leftover += images[2 * half :]
    leftover = random.permutation(np.array(leftover, dtype=np.int64)).tolist()
    first += leftover[: len(leftover) // 2]
    second += leftover[len(leftover) // 2 :]
    return np.sort(np.array(first, dtype=np.int64)), np.sort(np.array(second, dtype=np.int64))


def some(names: Sequence[str], limit: int = 5) -> str:
    """Join the first few of ``names`` for a message, each cut at 200 characters and printable."""
    shown = [printable(name if len(name) <= 200 else f"{name[:200]}...") for name in names[:limit]]
    return ", ".join(shown) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def require_parsed(where: Path, unparsed: Sequence[str], parsed: int, expected: str) -> None:
    """Check that at least one name could be parsed.

    Args:
        where: What was read, for the error.
        unparsed: The names that could not be parsed.
        parsed: How many could.
        expected: A name, or a pattern, that names should follow.

    Raises:
        AutoReIDError: there are names, and none could be parsed.
    """
    if unparsed and not parsed:
        raise AutoReIDError(
            f"{where}: none of {len(unparsed)} names is like {expected}: {some(unparsed)}; check the folder "
            "and the kind of data set"
        )
