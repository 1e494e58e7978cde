"""Images as users give them to an embedder: files, PIL images, arrays."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from autoreid_fast.data.images import as_rgb, open_rgb
from autoreid_fast.errors import AutoReIDError

Picture = str | os.PathLike[str] | Image.Image | np.ndarray
"""One image: a file, a PIL image, or (H, W, 3) uint8 RGB."""


def as_sequence(images: Picture | Sequence[Picture]) -> Sequence[Picture]:
    """A sequence of single images; a (N, H, W, 3) array is one of N images."""
    if isinstance(images, str | os.PathLike | Image.Image):
        return [images]
    if isinstance(images, np.ndarray) and images.ndim == 3:
        return [images]
    return list(images)


def read_rgb(picture: Any) -> Image.Image:
    """Read one image as RGB.

    Raises:
        AutoReIDError: not an image, or one that cannot be read; the message names it.
    """
    if isinstance(picture, np.ndarray):
        picture = _from_array(picture)
    if isinstance(picture, Image.Image):
        try:
            return as_rgb(picture)
        except (ValueError, OSError) as error:  # PIL reads a file's pixels when they are needed
            raise AutoReIDError(f"embed: {picture}: {error}") from None
    if not isinstance(picture, str | os.PathLike):
        raise AutoReIDError(
            f"embed: {type(picture).__name__} is not an image; expected a file, a PIL image or a uint8 array"
        )
    return _from_file(Path(picture).expanduser())


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise AutoReIDError(
            f"embed: an array is {array.shape} {array.dtype}; expected RGB pixels (H, W, 3) uint8"
        )
    return Image.fromarray(array)


def _from_file(path: Path) -> Image.Image:
    if path.is_dir():
        raise AutoReIDError(
            f"{path} is a folder: give its images, {path}/* on a command line, "
            f"sorted(Path({str(path)!r}).iterdir()) in Python"
        )
    try:
        return open_rgb(path)
    except FileNotFoundError:
        raise AutoReIDError(f"{path}: no such file") from None
    except Exception as error:  # decoders raise many kinds of errors on broken files
        raise AutoReIDError(f"{path}: not an image that can be read ({error})") from None
