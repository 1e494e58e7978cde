"""Image files: their names, decoding and size limits."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from autoreid_fast.data.dataset import ImageRecord
from autoreid_fast.errors import AutoReIDError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})
SMALLEST_SIDE = 4
"""Fewest pixels on a side: a person has four parts (Fig. 2)."""
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")


def is_image(name: str) -> bool:
    """Return whether a file of this name is an image by its extension; hidden files are not."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS and not os.path.basename(name).startswith(".")  # noqa: PTH119, PTH122 - called for 500,000 names


def list_images(folder: Path) -> list[str]:
    """Return the sorted names of the images directly in ``folder``."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_image(entry.name))


def images_below(root: Path) -> Iterator[str]:
    """Yield the posix paths, relative to ``root``, of all images below it; follows links; unordered."""
    for folder, _, names in os.walk(root, followlinks=True):
        base = Path(folder).relative_to(root)
        yield from ((base / name).as_posix() for name in names if is_image(name))


def open_rgb(path: Path) -> Image.Image:
    """Decode a file to an RGB image by its content, not its extension.

    An EXIF orientation is not applied: the released data sets are evaluated as they are stored. An image
    with more pixels than Pillow's ``MAX_IMAGE_PIXELS``, or with a side below `SMALLEST_SIDE`, is an error
    before it is decoded.
    """
    with Image.open(path, formats=FORMATS) as image:
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels, more than {limit}")
        return as_rgb(image)


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB; ValueError if a side has fewer than `SMALLEST_SIDE` pixels."""
    if min(image.size) < SMALLEST_SIDE:
        raise ValueError(
            f"{image.width}x{image.height} pixels: expected at least {SMALLEST_SIDE} on each side to show a "
            "person"
        )
    return image.convert("RGB")


def resized(image: Image.Image, height: int, width: int) -> np.ndarray:
    """Resize to (``height``, ``width``, 3) uint8 by Pillow's bilinear filter, which is antialiased."""
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def files_below(root: Path) -> Callable[[ImageRecord], Image.Image]:
    """Return the ``read_image`` of a data set whose images are files below ``root``."""
    return lambda record: open_rgb(root / record.path)


def require_layout(root: Path, needed: tuple[str, ...], layout: str) -> None:
    """Check that ``root`` is a folder and has the files and folders ``needed``.

    Raises:
        AutoReIDError: it is not, or has not; the message names what is missing and describes ``layout``.
    """
    if not root.is_dir():
        raise AutoReIDError(f"{root}: no such folder; expected {layout} in data.root")
    missing = [name for name in needed if not (root / name).exists()]
    if missing:
        raise AutoReIDError(f"{root}: no {', '.join(missing)} in it; expected {layout} in data.root")
