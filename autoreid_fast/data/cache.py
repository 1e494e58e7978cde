"""Image cache: every image of a split decoded once into a uint8 file, memory-mapped and checksummed.

The file holds the images, (N, H, W, 3) uint8 from byte 0; a JSON footer (the images kept and those that
could not be read, the fingerprint of the image files, one CRC-32 per block); the footer's length and CRC-32;
and magic bytes.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from autoreid_fast.data.dataset import Dataset, ImageRecord, some
from autoreid_fast.data.images import resized
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import atomic_path, short_name

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with the number of images done and the total."""

FORMAT_VERSION = 1
RESIZE = "PIL bilinear, antialiased, EXIF ignored, 16 bits scaled"
TAIL = struct.Struct("<QI12s")
MAGIC = b"autoreid-u8\n"
BLOCK_BYTES = 1 << 26
DECODED_AT_ONCE = 128
DEVICE_FRACTION = 0.5
"""Fraction of a GPU's free memory that images may take; the network needs the rest."""


@dataclass(frozen=True)
class ImageCache:
    """The decoded images of one list of records.

    Attributes:
        path: The cache file.
        images: (N, H, W, 3) uint8, a read-only memory map.
        records: The N records in the order of the images.
        unreadable: (path, reason) of each image left out.
    """

    path: Path
    images: np.memmap
    records: tuple[ImageRecord, ...]
    unreadable: tuple[tuple[str, str], ...]
    _on: dict[torch.device, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def on(self, device: torch.device | str) -> Tensor:
        """Return the images as one tensor on ``device``, (N, H, W, 3) uint8, copied there once.

        On the CPU it is the memory map itself and must not be written to. The same holds for a CUDA device
        of which the images would take more than half of the free memory: this is logged, and batches are
        gathered on the host.
        """
        device = torch.device(device)
        if device not in self._on:
            with catch_warnings():
                simplefilter("ignore", UserWarning)  # torch warns of read-only memory
                images = torch.from_numpy(self.images)
            fits = device.type != "cuda" or self._fits(device)
            self._on[device] = images.to(device) if fits else images
        return self._on[device]

    def _fits(self, device: torch.device) -> bool:
        free, _ = torch.cuda.mem_get_info(device)
        fits: bool = self.images.nbytes <= DEVICE_FRACTION * free
        if not fits:
            log.info(
                "%d images (%.1f GB) stay in host memory and are copied to %s batch by batch: it has %.1f GB "
                "free, of which images may take half",
                len(self.images),
                self.images.nbytes / 1e9,
                device,
                free / 1e9,
            )
        return fits


def default_cache_dir() -> Path:
    """Return ``$XDG_CACHE_HOME/autoreid_fast``, or ``~/.cache/autoreid_fast``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autoreid_fast"


def decode(
    dataset: Dataset, records: Sequence[ImageRecord], height: int, width: int
) -> Iterator[np.ndarray | str]:
    """Yield each image of ``records`` in order as (H, W, 3) uint8, or the reason why it cannot be read.

    Images are resized by Pillow's bilinear filter, which is antialiased, and decoded in threads, at most 128
    images ahead.
    """

    def one(record: ImageRecord) -> np.ndarray | str:
        try:
            image = dataset.read_image(record)
            if not isinstance(image, Image.Image):
                return f"read_image returned {type(image).__name__}; expected a PIL image"
            return resized(image, height, width)
        except Exception as error:  # each decoder fails on broken bytes in its own way
            return f"{type(error).__name__}: {error}"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(records), DECODED_AT_ONCE):
            yield from pool.map(one, records[start : start + DECODED_AT_ONCE])


def open_cache(
    dataset: Dataset,
    records: Sequence[ImageRecord],
    height: int,
    width: int,
    cache_dir: Path | None = None,
    max_unreadable_share: float = 0.01,
    progress: Progress | None = None,
) -> ImageCache:
    """Open the cache of ``records`` at ``height`` x ``width``; build it if it is missing, stale or damaged.

    It is stale if the name, size or times of an image file, the resizing or the format have changed, and
    damaged if a checksum does not match; all checksums are verified here. It is written atomically, so that
    several processes may build the same cache at once.

    Args:
        dataset: The data set, which decodes the records.
        records: The images, N of them.
        height: Height in pixels.
        width: Width in pixels.
        cache_dir: Folder of the cache file; default: `default_cache_dir`.
        max_unreadable_share: Fraction of the images that may be unreadable.
        progress: Called after each image while the cache is built.

    Raises:
        AutoReIDError: there are no records, too many or all of them are unreadable, or the cache cannot be
            written.
    """
    if not records:
        raise AutoReIDError(f"{dataset.root}: no images to cache for {dataset.name}")
    cache_dir = cache_dir or default_cache_dir()
    path = cache_dir / _file_name(dataset, records, height, width)
    fingerprint = fingerprint_of(dataset, records)
    size = height, width
    try:
        cache = _load(path, records, size, fingerprint)
    except OSError:  # missing; if it cannot be written either, building it raises the error
        cache = None
    except _UnusableError as reason:
        log.warning("rebuilding %s: %s", path, reason)
        cache = None
    if cache is None:
        _build(path, dataset, records, size, fingerprint, max_unreadable_share, progress)
        cache = _load(path, records, size, fingerprint)
    check_share(dataset, cache.unreadable, len(records), max_unreadable_share)
    _report_losses(dataset, records, cache)
    return cache


class _UnusableError(Exception):
    """A cache file must be rebuilt; the message is the reason."""


def _file_name(dataset: Dataset, records: Sequence[ImageRecord], height: int, width: int) -> str:
    """Name a cache file by data set, list of images and size; the fingerprint holds what may go stale."""
    digest = hashlib.sha256(os.fsencode(dataset.root.resolve()))
    for record in records:
        digest.update(b"\0" + os.fsencode(record.path))
    name = short_name(re.sub(r"[^\w.-]+", "_", dataset.name))
    return f"{name}-{height}x{width}-{digest.hexdigest()[:16]}.u8"


def fingerprint_of(dataset: Dataset, records: Sequence[ImageRecord]) -> str:
    """Hash the list of images with the size and times of each file, as hex digits.

    A tool that replaces a file may set its size and modification time, but not the time of its last change.
    """
    digest = hashlib.sha256(f"{FORMAT_VERSION} {RESIZE}".encode())
    if dataset.container:
        digest.update(_stamp(dataset.container))
    for record in records:
        digest.update(os.fsencode(record.path) + b"\0")
        if not dataset.container:
            digest.update(_stamp(dataset.file_of(record)))
    return digest.hexdigest()


def _stamp(path: Path) -> bytes:
    try:
        status = path.stat()
    except OSError:
        return b"missing"
    return struct.pack("<qqq", status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _load(path: Path, records: Sequence[ImageRecord], size: tuple[int, int], fingerprint: str) -> ImageCache:
    footer, data_bytes = _read_footer(path)
    if footer["fingerprint"] != fingerprint:
        raise _UnusableError("the images have changed")
    kept = footer["kept"]
    shape = (len(kept), *size, 3)
    if data_bytes != np.prod(shape, dtype=np.int64):
        raise _UnusableError("its length is not that of its images")
    images = np.memmap(path, np.uint8, "r", 0, shape)
    flat = images.reshape(-1)
    blocks = (flat[start : start + BLOCK_BYTES] for start in range(0, flat.size, BLOCK_BYTES))
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # zlib releases the GIL
        if list(pool.map(zlib.crc32, blocks)) != footer["checksums"]:
            raise _UnusableError("a checksum does not match")
    unreadable = tuple((name, reason) for name, reason in footer["unreadable"])
    return ImageCache(path, images, tuple(records[index] for index in kept), unreadable)


def _read_footer(path: Path) -> tuple[dict[str, Any], int]:
    """Read the footer of a cache file, and the number of bytes before it."""
    with path.open("rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        if end < TAIL.size:
            raise _UnusableError("it is cut short")
        stream.seek(end - TAIL.size)
        length, checksum, magic = TAIL.unpack(stream.read())
        start = end - TAIL.size - length
        if magic != MAGIC or start < 0:
            raise _UnusableError("it is cut short, or not an image cache")
        stream.seek(start)
        text = stream.read(length)
    if zlib.crc32(text) != checksum:
        raise _UnusableError("its footer is damaged")
    return json.loads(text), start


def _build(
    path: Path,
    dataset: Dataset,
    records: Sequence[ImageRecord],
    size: tuple[int, int],
    fingerprint: str,
    max_unreadable_share: float,
    progress: Progress | None,
) -> None:
    height, width = size
    require_room(
        path.parent,
        len(records) * height * width * 3,
        "image cache",
        "set data.cache_dir to another folder",
        ", or a smaller data.height and data.width",
    )
    kept: list[int] = []
    unreadable: list[tuple[str, str]] = []
    checksums: list[int] = []
    in_block = 0
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        for index, image in enumerate(decode(dataset, records, height, width)):
            if isinstance(image, str):
                unreadable.append((records[index].path, image))
            else:
                kept.append(index)
                in_block = _write(stream.write, image, checksums, in_block)
            if progress:
                progress(index + 1, len(records))
        check_share(dataset, unreadable, len(records), max_unreadable_share)
        footer = json.dumps(
            {"fingerprint": fingerprint, "kept": kept, "unreadable": unreadable, "checksums": checksums}
        ).encode()
        stream.write(footer + TAIL.pack(len(footer), zlib.crc32(footer), MAGIC))


def _write(write: Callable[[bytes], Any], image: np.ndarray, checksums: list[int], in_block: int) -> int:
    """Write one image and update the blocks' checksums; return the number of bytes in the last block."""
    rest = image.tobytes()
    write(rest)
    while rest:
        if in_block in (0, BLOCK_BYTES):
            checksums.append(0)
            in_block = 0
        part, rest = rest[: BLOCK_BYTES - in_block], rest[BLOCK_BYTES - in_block :]
        checksums[-1] = zlib.crc32(part, checksums[-1])
        in_block += len(part)
    return in_block


def require_room(folder: Path, needed: int, content: str, elsewhere: str, smaller: str = "") -> None:
    """Make ``folder`` and check that it can be written to and has ``needed`` bytes free.

    Args:
        folder: The folder.
        needed: Bytes.
        content: What will be written, for the error.
        elsewhere: How to choose another folder, for the error.
        smaller: How to need less room, for the error.

    Raises:
        AutoReIDError: it cannot be made or written to, or has too little room.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise AutoReIDError(f"{folder}: cannot be made for the {content} ({error}); {elsewhere}") from error
    if not os.access(folder, os.W_OK):
        raise AutoReIDError(f"{folder}: the {content} cannot be written there; {elsewhere}")
    if free < needed:
        raise AutoReIDError(
            f"{folder}: the {content} needs {_size(needed)}, and {_size(free)} are free; {elsewhere}{smaller}"
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def check_share(
    dataset: Dataset, unreadable: Sequence[tuple[str, str]], total: int, max_unreadable_share: float
) -> None:
    if len(unreadable) == total or len(unreadable) > max_unreadable_share * total:
        named = some([f"{name} ({reason})" for name, reason in unreadable], 3)
        raise AutoReIDError(
            f"{dataset.root}: {len(unreadable)} of {total} images cannot be read, more than "
            f"data.max_unreadable_share {max_unreadable_share:g}: {named}"
        )


def _report_losses(dataset: Dataset, records: Sequence[ImageRecord], cache: ImageCache) -> None:
    if not cache.unreadable:
        return
    named = some([f"{name} ({reason})" for name, reason in cache.unreadable], 3)
    log.warning("%s: left out %d unreadable images: %s", dataset.name, len(cache.unreadable), named)
    lost = {record.pid for record in records} - {record.pid for record in cache.records}
    if lost:
        named = some([str(pid) for pid in sorted(lost)])
        log.warning("%s: %d identities have no image left: pid %s", dataset.name, len(lost), named)
