"""Trees of classified images, like ImageNet: read file by file by worker processes, without a cache."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from autoreid_fast.data.batches import to_device
from autoreid_fast.data.dataset import some
from autoreid_fast.data.images import open_rgb, require_folder
from autoreid_fast.data.walk import images_below, visible_folders
from autoreid_fast.distributed.processes import WHOLE, Shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops import batch_from_cache

log = logging.getLogger(__name__)

SPLITS = ("train", "val")
ASPECT = 4 / 3
"""Largest aspect ratio of a training crop; the smallest is its inverse (Szegedy et al., 2015)."""
CENTER = 0.875
"""Fraction of the image's side that a validation crop keeps: 224 of 256."""
ATTEMPTS = 10
MAX_UNREADABLE_SHARE = 0.01
"""Largest fraction of the images that may be unreadable; one always may."""
LONGEST_SEARCH = 100
"""Images that are tried in place of an unreadable one."""


class ImageFolder(NamedTuple):
    """Images of one split.

    Attributes:
        files: The N images.
        labels: (N,) int64 in 0..len(``classes``)-1.
        classes: Names of the classes.
    """

    files: list[Path]
    labels: Tensor
    classes: list[str]


def read_image_folder(root: Path | None) -> tuple[ImageFolder, ImageFolder]:
    """List the training and validation images of ``root``/{train,val}/CLASS/...; no image is opened.

    Raises:
        AutoReIDError: ``root`` is not set, a folder is missing or empty, or the two splits differ in their
            classes.
    """
    if root is None:
        raise AutoReIDError("root is not set: give the folder that holds train/ and val/ (--root)")
    train, val = (_read_split(root.expanduser() / split) for split in SPLITS)
    if train.classes != val.classes:
        unpaired = sorted(set(train.classes) ^ set(val.classes))[0]
        raise AutoReIDError(
            f"{root}: expected the same classes in train/ and val/; {unpaired} is in only one of them"
        )
    return train, val


def _read_split(folder: Path) -> ImageFolder:
    require_folder(folder, "one folder of images per class in it")
    classes = visible_folders(folder)
    if len(classes) < 2:
        raise AutoReIDError(f"{folder}: {len(classes)} classes; expected at least 2 folders, one per class")
    paths = sorted(path.split("/") for path in images_below(folder))
    paths = [path for path in paths if len(path) > 1]  # the others are in no class
    numbers = {name: number for number, name in enumerate(classes)}
    labels = torch.tensor([numbers[path[0]] for path in paths], dtype=torch.int64)
    counts = labels.bincount(minlength=len(classes))
    if not counts.all():
        empty = classes[int(counts.argmin())]
        raise AutoReIDError(f"{folder / empty}: no images in it; expected at least one per class")
    return ImageFolder([folder.joinpath(*path) for path in paths], labels, classes)


class ImageBatches:
    """Batches of the images of an `ImageFolder`.

    With ``augment`` they are for training: shuffled, cropped and flipped at random, the same for the same
    (seed, epoch); images that do not fill a batch are left out of that epoch. Without it, they are the
    centres of all images in order.

    An image that cannot be read is logged. In training the next one of the list takes its place, so that
    batches keep their size; otherwise it is left out.

    Args:
        images: N images.
        size: Height and width in pixels.
        batch_size: Images per batch.
        device: Device of the batches.
        workers: Processes that decode; 0 decodes in this one.
        augment: Smallest fraction of an image's area that a crop keeps; None for validation.
        seed: Seed of order, crops and flips.
        shard: This process's part of each batch.
    """

    def __init__(
        self,
        images: ImageFolder,
        size: tuple[int, int],
        batch_size: int,
        device: torch.device,
        workers: int,
        augment: float | None = None,
        seed: int = 0,
        shard: Shard = WHOLE,
    ) -> None:
        self._decoder = _Decoder(images, size, augment, seed)
        self._batch_size = batch_size
        self._device = device
        self._workers = workers
        self._shuffled = augment is not None
        self._seed = seed
        self._shard = shard
        self._unreadable: set[str] = set()

    def __len__(self) -> int:
        """Number of batches per epoch."""
        whole, rest = divmod(len(self._decoder.images.files), self._batch_size)
        return whole + (rest > 0 and not self._shuffled)

    def epoch(self, epoch: int = 0, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of ``epoch`` from number ``first`` on.

        Each is images (B, 3, H, W) float32, normalised like batches from a cache, and labels (B,) int64. If
        a worker dies, torch raises a RuntimeError at any point of this process; see `worker_deaths`.

        Raises:
            AutoReIDError: more images than `MAX_UNREADABLE_SHARE` cannot be read.
        """
        loader = DataLoader(
            self._decoder,
            batch_sampler=self._batches(epoch)[first:],
            num_workers=self._workers,
            generator=torch.Generator(),  # the default would draw from torch's global generator
        )
        try:
            for pixels, labels, problems in loader:
                self._report(problems)
                if not self._shuffled:
                    readable = torch.tensor([not problem for problem in problems])
                    pixels, labels = pixels[readable], labels[readable]
                    if not len(pixels):
                        continue
                index = torch.arange(len(pixels), device=self._device)
                zero = torch.zeros_like(index)
                images = to_device(pixels, self._device)
                yield (
                    batch_from_cache(images, index, zero, zero, zero.bool()),
                    to_device(labels, self._device),
                )
        except AutoReIDError as error:  # from a worker it holds a traceback; the message is its last line
            raise AutoReIDError(error.args[0].splitlines()[-1].rpartition("AutoReIDError: ")[2]) from None

    def _report(self, problems: Sequence[str]) -> None:
        """Log each unreadable image once; AutoReIDError if there are too many."""
        for problem in sorted(set(filter(None, problems)) - self._unreadable):
            log.warning("left out an image: %s", problem)
            self._unreadable.add(problem)
            total = len(self._decoder.images.files)
            if len(self._unreadable) > max(1, MAX_UNREADABLE_SHARE * total):
                raise AutoReIDError(
                    f"{len(self._unreadable)} of {total} images cannot be read, more than "
                    f"{MAX_UNREADABLE_SHARE:.0%}: {some(sorted(self._unreadable), 3)}; replace or remove them"
                )

    def names(self, epoch: int, number: int) -> list[str]:
        """Return the files of this process's part of batch ``number`` of ``epoch``."""
        return [str(self._decoder.images.files[index]) for _, index in self._batches(epoch)[number]]

    def _batches(self, epoch: int) -> list[list[tuple[int, int]]]:
        """List (epoch, index) of each image, batch by batch."""
        order: Sequence[int] = range(len(self._decoder.images.files))
        if self._shuffled:
            order = np.random.default_rng([self._seed, epoch]).permutation(len(order)).tolist()
        batches = (order[i * self._batch_size :][: self._batch_size] for i in range(len(self)))
        shards = (batch[self._shard.rows(len(batch))] for batch in batches)
        return [[(epoch, index) for index in shard] for shard in shards if len(shard)]


@contextmanager
def worker_deaths() -> Iterator[None]:
    """Turn torch's error for a killed decoding process into an AutoReIDError while the block runs."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        reason = str(error).splitlines()[0].rstrip(". ")
        raise AutoReIDError(
            f"a process that decodes images died ({reason}), perhaps for lack of memory: resume the run with "
            "--resume, with fewer workers if memory is short"
        ) from None


class _Decoder(TorchDataset[tuple[np.ndarray, int, str]]):
    """Decode (epoch, index) to an image (H, W, 3) uint8, its label, and what is wrong with its file."""

    def __init__(self, images: ImageFolder, size: tuple[int, int], augment: float | None, seed: int) -> None:
        self.images = images
        self._size = size
        self._augment = augment
        self._seed = seed

    def __getitem__(self, key: tuple[int, int]) -> tuple[np.ndarray, int, str]:
        epoch, index = key
        image, readable, problem = self._open(index)
        height, width = self._size
        if self._augment is None:
            box, flip = _center_box(image, height, width), False
        else:
            random = np.random.default_rng([self._seed, epoch, index])
            box, flip = _random_box(image, self._augment, random), random.random() < 0.5
        pixels = np.array(image.resize((width, height), Image.Resampling.BILINEAR, box))
        label = int(self.images.labels[readable])
        return np.ascontiguousarray(pixels[:, ::-1] if flip else pixels), label, problem

    def _open(self, index: int) -> tuple[Image.Image, int, str]:
        """Open an image, or the next readable one; return its index, and what is wrong with the first."""
        files = self.images.files
        problem = ""
        for number in range(min(len(files), LONGEST_SEARCH)):
            readable = (index + number) % len(files)
            try:
                return open_rgb(files[readable]), readable, problem
            except Exception as error:  # decoders raise exceptions of any class
                problem = problem or f"{files[readable]}: cannot be read ({' '.join(str(error).split())})"
        raise AutoReIDError(f"{problem}, nor can the images after it; replace or remove them")


Box = tuple[float, float, float, float]


def _random_box(image: Image.Image, smallest: float, random: np.random.Generator) -> Box:
    """Draw a box in the image: area from the fraction ``smallest`` to 1, aspect ratio 3/4 to 4/3."""
    for _ in range(ATTEMPTS):
        area = random.uniform(smallest, 1) * image.width * image.height
        aspect = math.exp(random.uniform(-math.log(ASPECT), math.log(ASPECT)))
        width, height = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if width <= image.width and height <= image.height:
            left, top = random.uniform(0, image.width - width), random.uniform(0, image.height - height)
            return (left, top, min(left + width, image.width), min(top + height, image.height))
    return (0, 0, image.width, image.height)


def _center_box(image: Image.Image, height: int, width: int) -> Box:
    """Return the largest centred box of the given shape, scaled by CENTER."""
    scale = CENTER * min(image.width / width, image.height / height)
    x, y = image.width / 2, image.height / 2
    return (x - scale * width / 2, y - scale * height / 2, x + scale * width / 2, y + scale * height / 2)
