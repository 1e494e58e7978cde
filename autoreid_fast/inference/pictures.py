"""Images as users give them to an embedder: files, PIL images, arrays."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from autoreid_fast.data.images import as_rgb, open_rgb
from autoreid_fast.errors import AutoReIDError

Picture = str | os.PathLike[str] | Image.Image | np.ndarray
"""One image: a file, a PIL image, or (H, W, 3) uint8 RGB."""
EXPECTED = "an image: a file, a PIL image or a uint8 array"


def as_sequence(images: Picture | Sequence[Picture]) -> Sequence[Picture]:
    """A sequence of single images; a (N, H, W, 3) array is one of N images.

    Raises:
        AutoReIDError: neither an image nor a sequence.
    """
    if isinstance(images, str | os.PathLike | Image.Image):
        return [images]
    if isinstance(images, np.ndarray) and images.ndim == 3:
        return [images]
    if not isinstance(images, Iterable) or isinstance(images, set | frozenset | dict):  # these have no order
        raise AutoReIDError(f"embed: {type(images).__name__} is not {EXPECTED}, or a sequence of these")
    return list(images)


def read_all(pictures: Sequence[Picture], first: int = 0) -> list[Image.Image]:
    """Read the images of a batch, whose first one is number ``first`` of those that the user gave.

    Raises:
        AutoReIDError: one that is not an image, or cannot be read; the message has its file or its number.
    """
    images = []
    for number, picture in enumerate(pictures, first):
        try:
            images.append(read_rgb(picture))
        except AutoReIDError as error:
            if isinstance(picture, str | os.PathLike):  # the message names the file
                raise
            raise AutoReIDError(f"image {number}: {error}") from None
    return images


def read_rgb(picture: Any) -> Image.Image:
    """Read one image as RGB.

    Raises:
        AutoReIDError: not an image, or one that cannot be read; the message names it.
    """
    if isinstance(picture, np.ndarray):
        picture = _from_array(picture)
    if isinstance(picture, Image.Image):
        try:
            return as_rgb(ImageOps.exif_transpose(picture))
        except (ValueError, OSError) as error:  # PIL reads a file's pixels when they are needed
            raise AutoReIDError(f"embed: {picture}: {error}") from None
    if not isinstance(picture, str | os.PathLike):
        raise AutoReIDError(f"embed: {type(picture).__name__} is not {EXPECTED}")
    return _from_file(Path(picture).expanduser())


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise AutoReIDError(
            f"embed: an array is {array.shape} {array.dtype}; expected RGB pixels (H, W, 3) uint8"
        )
    if array.size == 0:
        raise AutoReIDError(f"embed: an array is {array.shape}, without pixels; leave out empty crops")
    return Image.fromarray(array)


def _from_file(path: Path) -> Image.Image:
    if path.is_dir():
        raise AutoReIDError(
            f"{path} is a folder: give its images, {path}/* on a command line, "
            f"sorted(Path({str(path)!r}).iterdir()) in Python"
        )
    try:
        return open_rgb(path, upright=True)
    except FileNotFoundError:
        raise AutoReIDError(f"{path}: no such file") from None
    except Exception as error:  # decoders raise many kinds of errors on broken files
        raise AutoReIDError(f"{path}: not an image that can be read ({error})") from None
