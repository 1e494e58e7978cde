"""Opening image files: which names count as images, which decoders may run, how large an image may be."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from autoreid_fast.data.dataset import ImageRecord
from autoreid_fast.errors import AutoReIDError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})
SMALLEST_SIDE = 4
"""Pixels on a side below which nobody can be seen: a person has four parts (Fig. 2)."""
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")


def is_image(name: str) -> bool:
    """Whether a file of this name counts as an image: by its extension, hidden files never."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS and not os.path.basename(name).startswith(".")  # noqa: PTH119, PTH122 - called for 500,000 names


def list_images(folder: Path) -> list[str]:
    """The sorted names of the images that lie in ``folder`` itself."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_image(entry.name))


def images_below(root: Path) -> Iterator[str]:
    """The posix paths, relative to ``root``, of all images below it, links followed; in no order."""
    for folder, _, names in os.walk(root, followlinks=True):
        base = Path(folder).relative_to(root)
        yield from ((base / name).as_posix() for name in names if is_image(name))


def open_rgb(path: Path) -> Image.Image:
    """Decode a file to an RGB image, going by its content and not by its extension.

    An EXIF orientation is not applied: the released sets are evaluated as they are stored. More pixels
    than Pillow's ``MAX_IMAGE_PIXELS``, or a side of less than `SMALLEST_SIDE`, are an error before anything
    is decoded.
    """
    with Image.open(path, formats=FORMATS) as image:
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels, more than {limit}")
        return as_rgb(image)


def as_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB; ValueError where a side has less than `SMALLEST_SIDE` pixels."""
    if min(image.size) < SMALLEST_SIDE:
        raise ValueError(
            f"{image.width}x{image.height} pixels, too small to show anybody: at least {SMALLEST_SIDE} on "
            "each side"
        )
    return image.convert("RGB")


def resized(image: Image.Image, height: int, width: int) -> np.ndarray:
    """(``height``, ``width``, 3) uint8 by Pillow's bilinear filter, which is antialiased."""
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def files_below(root: Path) -> Callable[[ImageRecord], Image.Image]:
    """The ``read_image`` of a data set whose images are files below ``root``."""
    return lambda record: open_rgb(root / record.path)


def require_layout(root: Path, needed: tuple[str, ...], layout: str) -> None:
    """Raise ``AutoReIDError`` naming what is missing below ``root``, and the layout expected there."""
    if not root.is_dir():
        raise AutoReIDError(f"{root}: no such folder; data.root must hold {layout}")
    missing = [name for name in needed if not (root / name).exists()]
    if missing:
        raise AutoReIDError(f"{root}: no {', '.join(missing)} in it; data.root must hold {layout}")
