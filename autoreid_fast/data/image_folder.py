"""Trees of classified images, as ImageNet is kept: read file by file by worker processes, never cached."""

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
from autoreid_fast.data.images import is_image, open_rgb
from autoreid_fast.distributed.processes import WHOLE, Shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops import batch_from_cache

SPLITS = ("train", "val")
ASPECT = 4 / 3
"""A training crop is at most so much wider than high, or higher than wide (Szegedy et al., 2015)."""
CENTER = 0.875
"""Share of the image's side that a validation crop keeps: 224 of 256."""
ATTEMPTS = 10


class ImageFolder(NamedTuple):
    """The images of one split: ``files`` and their ``labels`` (N,) int64, in 0..len(``classes``)-1."""

    files: list[Path]
    labels: Tensor
    classes: list[str]


def read_image_folder(root: Path | None) -> tuple[ImageFolder, ImageFolder]:
    """The training and the validation images of ``root``/{train,val}/CLASS/...; no image is opened.

    Raises:
        AutoReIDError: no root, a folder missing or without images, or classes that differ between the two.
    """
    if root is None:
        raise AutoReIDError("root is not set: give the folder that holds train/ and val/ (--root)")
    train, val = (_read_split(root.expanduser() / split) for split in SPLITS)
    if train.classes != val.classes:
        odd = sorted(set(train.classes) ^ set(val.classes))[0]
        raise AutoReIDError(f"{root}: train/ and val/ need the same classes; {odd} is in one of them alone")
    return train, val


def _read_split(folder: Path) -> ImageFolder:
    if not folder.is_dir():
        raise AutoReIDError(f"{folder}: no such folder; it holds a folder of images for each class")
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(path for path in (folder / name).rglob("*") if is_image(path.name))
        if not found:
            raise AutoReIDError(f"{folder / name}: no images in it; each class needs some")
        files += found
        labels += [label] * len(found)
    if len(classes) < 2:
        raise AutoReIDError(f"{folder}: {len(classes)} classes; it needs a folder each for at least 2")
    return ImageFolder(files, torch.tensor(labels), classes)


class ImageBatches:
    """Batches of an ImageFolder's images, decoded by ``workers`` processes (0: by this one).

    Training batches (``augment`` is the smallest share of an image's area that a crop keeps) are drawn in an
    order of the epoch's, cropped and flipped at random, the same for the same (seed, epoch); images left over
    by whole batches are not used in that epoch. Without ``augment`` all images come, in order, each its
    centre. ``share``: this process's part of each batch.
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
        share: Shard = WHOLE,
    ) -> None:
        self._decoder = _Decoder(images, size, augment, seed)
        self._batch_size = batch_size
        self._device = device
        self._workers = workers
        self._shuffled = augment is not None
        self._seed = seed
        self._share = share

    def __len__(self) -> int:
        """Batches an epoch."""
        whole, rest = divmod(len(self._decoder.images.files), self._batch_size)
        return whole + (rest > 0 and not self._shuffled)

    def epoch(self, epoch: int = 0, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield images (B, 3, H, W) float32, normalised as the caches' are, and labels (B,) int64.

        From batch ``first`` on. Where a worker dies, torch raises a RuntimeError wherever this process is:
        `worker_deaths` says it as it should be said.

        Raises:
            AutoReIDError: an image cannot be read.
        """
        loader = DataLoader(
            self._decoder,
            batch_sampler=self._batches(epoch)[first:],
            num_workers=self._workers,
            generator=torch.Generator(),  # a loader draws from torch's own otherwise
        )
        try:
            for pixels, labels in loader:
                index = torch.arange(len(pixels), device=self._device)
                still = torch.zeros_like(index)
                images = to_device(pixels, self._device)
                yield (
                    batch_from_cache(images, index, still, still, still.bool()),
                    to_device(labels, self._device),
                )
        except AutoReIDError as error:  # a worker's comes with its traceback, whose last line says it
            raise AutoReIDError(error.args[0].splitlines()[-1].rpartition("AutoReIDError: ")[2]) from None

    def names(self, epoch: int, number: int) -> list[str]:
        """The files of this process's part of batch ``number`` of ``epoch``."""
        return [str(self._decoder.images.files[index]) for _, index in self._batches(epoch)[number]]

    def _batches(self, epoch: int) -> list[list[tuple[int, int]]]:
        """The (epoch, index) of each image, batch by batch."""
        order: Sequence[int] = range(len(self._decoder.images.files))
        if self._shuffled:
            order = np.random.default_rng([self._seed, epoch]).permutation(len(order)).tolist()
        batches = (order[i * self._batch_size :][: self._batch_size] for i in range(len(self)))
        own = (batch[self._share.rows(len(batch))] for batch in batches)
        return [[(epoch, index) for index in batch] for batch in own if len(batch)]


@contextmanager
def worker_deaths() -> Iterator[None]:
    """Say in one line that a process which decodes images was killed while the block ran."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        reason = str(error).splitlines()[0].rstrip(". ")
        raise AutoReIDError(
            f"a process that decodes images has died ({reason}), as they do where memory ends: --resume goes "
            "on from the last checkpoint; fewer workers need less"
        ) from None


class _Decoder(TorchDataset[tuple[np.ndarray, int]]):
    """(epoch, index) -> a decoded image (H, W, 3) uint8 and its label; what a worker does."""

    def __init__(self, images: ImageFolder, size: tuple[int, int], augment: float | None, seed: int) -> None:
        self.images = images
        self._size = size
        self._augment = augment
        self._seed = seed

    def __getitem__(self, place: tuple[int, int]) -> tuple[np.ndarray, int]:
        epoch, index = place
        path = self.images.files[index]
        try:
            image = open_rgb(path)
        except Exception as error:  # decoders raise whatever they like
            raise AutoReIDError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
        height, width = self._size
        if self._augment is None:
            box, flip = _center_box(image, height, width), False
        else:
            random = np.random.default_rng([self._seed, epoch, index])
            box, flip = _random_box(image, self._augment, random), random.random() < 0.5
        pixels = np.array(image.resize((width, height), Image.Resampling.BILINEAR, box))
        return np.ascontiguousarray(pixels[:, ::-1] if flip else pixels), int(self.images.labels[index])


Box = tuple[float, float, float, float]


def _random_box(image: Image.Image, smallest: float, random: np.random.Generator) -> Box:
    """A box of ``smallest`` to all of the area, its aspect ratio 3/4 to 4/3, that lies in the image."""
    for _ in range(ATTEMPTS):
        area = random.uniform(smallest, 1) * image.width * image.height
        aspect = math.exp(random.uniform(-math.log(ASPECT), math.log(ASPECT)))
        width, height = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if width <= image.width and height <= image.height:
            left, top = random.uniform(0, image.width - width), random.uniform(0, image.height - height)
            return (left, top, min(left + width, image.width), min(top + height, image.height))
    return (0, 0, image.width, image.height)


def _center_box(image: Image.Image, height: int, width: int) -> Box:
    """The largest box of the shape asked for, around the centre, times CENTER."""
    scale = CENTER * min(image.width / width, image.height / height)
    x, y = image.width / 2, image.height / 2
    return (x - scale * width / 2, y - scale * height / 2, x + scale * width / 2, y + scale * height / 2)
