"""Image files: decoding and size limits."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from autoreid_fast.data.dataset import ImageRecord
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import require_regular

SMALLEST_SIDE = 4
"""Fewest pixels on a side: a person has four parts (Fig. 2)."""
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".rar", ".7z")


def open_rgb(path: Path, upright: bool = False) -> Image.Image:
    """Decode a file to an RGB image by its content, not its extension.

    Photos are turned ``upright`` by their EXIF orientation; the released data sets are evaluated as they are
    stored. An image with more pixels than Pillow's ``MAX_IMAGE_PIXELS``, or with a side below
    `SMALLEST_SIDE`, is an error before it is decoded, and so is what is not a regular file: a pipe would be
    waited for.
    """
    if path.exists() and not path.is_file():
        raise ValueError("not a regular file")
    try:
        image = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        formats = ", ".join(FORMATS)
        raise UnidentifiedImageError(
            f"broken, or not of a format that is read ({formats}); convert it"
        ) from None
    with image:
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels, more than {limit}")
        return as_rgb(ImageOps.exif_transpose(image) if upright else image)


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB; grey levels of 16 bits and floats from 0 to 1 are scaled.

    Raises:
        ValueError: a side has fewer than `SMALLEST_SIDE` pixels, or the grey levels have another range.
    """
    if min(image.size) < SMALLEST_SIDE:
        raise ValueError(
            f"{image.width}x{image.height} pixels: expected at least {SMALLEST_SIDE} on each side to show a "
            "person"
        )
    if image.mode == "F":
        return _scaled(image, 1.0)
    if image.mode.startswith("I"):  # PNG and PPM have 16 bits at most
        if image.mode == "I" and image.format not in ("PNG", "PPM"):
            raise ValueError("grey levels of 32 bits: expected 8 or 16, or floats from 0 to 1")
        return _scaled(image, 65535.0)
    return image.convert("RGB")


def _scaled(image: Image.Image, largest: float) -> Image.Image:
    """Convert grey levels from 0 to ``largest`` to RGB of 8 bits."""
    levels = np.asarray(image, dtype=np.float64)
    if not (levels.min() >= 0 and levels.max() <= largest):
        raise ValueError(
            f"grey levels from {levels.min():g} to {levels.max():g}: expected 0 to {largest:g}; convert it"
        )
    return Image.fromarray((levels * (255 / largest)).round().astype(np.uint8)).convert("RGB")


def resized(image: Image.Image, height: int, width: int) -> np.ndarray:
    """Resize to (``height``, ``width``, 3) uint8 by Pillow's bilinear filter, which is antialiased."""
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def files_below(root: Path, upright: bool = False) -> Callable[[ImageRecord], Image.Image]:
    """Return the ``read_image`` of a data set whose images are files below ``root``; see `open_rgb`."""
    return lambda record: open_rgb(root / record.path, upright)


def require_folder(path: Path, expected: str) -> None:
    """Raise an AutoReIDError that says what was ``expected`` unless ``path`` is a folder."""
    if not path.is_dir():
        found = "a file" if path.exists() else "no such folder"
        raise AutoReIDError(f"{path}: {found}; expected {expected}")


def require_layout(root: Path, needed: tuple[str, ...], layout: str) -> None:
    """Check that ``root`` is a folder and has the files and folders ``needed``.

    Raises:
        AutoReIDError: it is not, or has not; the message names what is missing, describes ``layout``, and
            points to a folder one level higher or lower that fits, or to an archive.
    """
    if not root.is_dir():
        if root.is_file():
            raise AutoReIDError(f"{root}: a file; expected a folder in data.root; unpack an archive first")
        archive = _archive_in(root.parent)
        raise AutoReIDError(f"{root}: no such folder; expected {layout} in data.root{archive}")
    missing = [name for name in needed if not (root / name).exists()]
    if missing:
        raise AutoReIDError(
            f"{root}: no {', '.join(missing)} in it; expected {layout} in data.root"
            f"{_fitting_root(root, needed) or _archive_in(root)}"
        )
    try:
        for name in needed:
            require_regular(root / name)
    except OSError as error:
        raise AutoReIDError(f"{error.filename}: {error.strerror}; expected {layout} in data.root") from None


def _fitting_root(root: Path, needed: tuple[str, ...]) -> str:
    """Suggest a folder one level higher or lower that has most of ``needed``."""
    below = sorted(entry for entry in root.iterdir() if entry.is_dir())
    for folder in (root.resolve().parent, *below):
        if 2 * sum((folder / name).exists() for name in needed) > len(needed):
            return f"; did you mean {folder}?"
    return ""


def _archive_in(folder: Path) -> str:
    archives = sorted(path for path in folder.glob("*") if path.name.lower().endswith(ARCHIVES))
    return f"; unpack {archives[0]} first" if archives else ""
