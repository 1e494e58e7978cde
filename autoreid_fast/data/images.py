"""Image files: decoding and size limits."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from autoreid_fast.data.dataset import ImageRecord
from autoreid_fast.errors import AutoReIDError

SMALLEST_SIDE = 4
"""Fewest pixels on a side: a person has four parts (Fig. 2)."""
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")


def open_rgb(path: Path) -> Image.Image:
    """Decode a file to an RGB image by its content, not its extension.

    An EXIF orientation is not applied: the released data sets are evaluated as they are stored. An image
    with more pixels than Pillow's ``MAX_IMAGE_PIXELS``, or with a side below `SMALLEST_SIDE`, is an error
    before it is decoded, and so is what is not a regular file: a pipe would be waited for.
    """
    if path.exists() and not path.is_file():
        raise ValueError("not a regular file")
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
