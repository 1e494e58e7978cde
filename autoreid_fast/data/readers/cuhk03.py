"""CUHK03 (Li et al., CVPR 2014), the 767/700 protocol of Zhong et al. (CVPR 2017), from the .mat files."""

import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from autoreid_fast.data.config import DataConfig, register_dataset
from autoreid_fast.data.dataset import Dataset, ImageRecord, require_parsed, some
from autoreid_fast.data.images import require_layout
from autoreid_fast.errors import AutoReIDError

IMAGES = "cuhk-03.mat"
CONFIG = "cuhk03_new_protocol_config_{boxes}.mat"
RELEASE = "cuhk03_release"
LAYOUT = "cuhk-03.mat (or cuhk03_release/cuhk-03.mat) and cuhk03_new_protocol_config_{labeled,detected}.mat"
FIELDS = ("filelist", "labels", "camId", "train_idx", "query_idx", "gallery_idx")
NAME = re.compile(r"([1-5])_(\d{3})_([12])_(\d{2})\.png")


class Cuhk03Config(DataConfig):
    """CUHK03 on disk."""

    boxes: Literal["labeled", "detected"] = Field(
        "labeled", description="Boxes drawn by people or by a detector. The paper reports both."
    )


@register_dataset("cuhk03")
def read_cuhk03(config: Cuhk03Config) -> Dataset:
    """CUHK03 (767/700): 7,368 / 1,400 / 5,328 labeled images, 7,365 / 1,400 / 5,332 detected ones.

    The protocol lists the images by the names that are usual in the field, ``1_001_1_01.png``: camera pair,
    person of that pair, view and image, all from 1; they are decoded straight from the cell arrays of
    ``cuhk-03.mat``. pids and cameras are the protocol's labels and camId.

    Raises:
        AutoReIDError: ``root`` is not set; a file is missing or not a MATLAB file; a field is missing or of
            the wrong length; an index is out of range; or no name can be parsed.
    """
    root, boxes = config.root_folder, config.boxes
    config_name = CONFIG.format(boxes=boxes)
    container = root / RELEASE / IMAGES if (root / RELEASE).is_dir() else root / IMAGES
    require_layout(root, (container.relative_to(root).as_posix(), config_name), LAYOUT)
    protocol = _read_protocol(root / config_name)
    unparsed: list[str] = []
    records: list[ImageRecord | None] = []
    for name, pid, camera in zip(protocol["filelist"], protocol["labels"], protocol["camId"], strict=True):
        if NAME.fullmatch(name):
            records.append(ImageRecord(f"{boxes}/{name}", int(pid), int(camera)))
        else:
            records.append(None)
            unparsed.append(name)
    require_parsed(root / config_name, unparsed, len(records) - len(unparsed), "1_001_1_01.png")
    train, query, gallery = (
        tuple(record for index in protocol[f"{split}_idx"] if (record := records[index - 1]))
        for split in ("train", "query", "gallery")
    )
    return Dataset(
        name=f"cuhk03-{boxes}",
        root=root,
        train=train,
        query=query,
        gallery=gallery,
        read_image=_MatImages(container),
        unparsed=tuple(unparsed),
        container=container,
    )


def _read_protocol(path: Path) -> dict[str, Any]:
    """Read the protocol's fields as flat arrays, ``filelist`` as a list of names; indices are 1-based."""
    try:
        import scipy.io

        # in another process: a flipped bit in the type of a number crashes scipy 1.17
        with ProcessPoolExecutor(1, get_context("fork")) as process:
            content = process.submit(scipy.io.loadmat, path).result()
    except Exception as error:  # scipy raises many kinds of exceptions for damaged files
        raise AutoReIDError(f"{path}: not a readable MATLAB file ({error}); download it again") from error
    missing = [name for name in FIELDS if name not in content]
    if missing:
        raise AutoReIDError(f"{path}: no {', '.join(missing)} in it; expected a file of the new protocol")
    try:
        protocol: dict[str, Any] = {name: content[name].reshape(-1) for name in FIELDS}
        protocol["filelist"] = [str(np.asarray(cell).reshape(-1)[0]) for cell in protocol["filelist"]]
        for name in FIELDS[1:]:
            protocol[name] = whole_numbers(protocol[name])
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise AutoReIDError(
            f"{path}: expected fields of names and whole numbers ({error}); download it again"
        ) from error
    count = len(protocol["filelist"])
    for name in ("labels", "camId"):
        if len(protocol[name]) != count:
            raise AutoReIDError(
                f"{path}: {name} has {len(protocol[name])} entries: expected {count}, as many as filelist"
            )
    for name in ("train_idx", "query_idx", "gallery_idx"):
        outside = protocol[name][(protocol[name] < 1) | (protocol[name] > count)]
        if len(outside):
            raise AutoReIDError(
                f"{path}: {name} holds {some([str(i) for i in outside])}: expected 1 to {count}"
            )
    if (protocol["labels"] < 1).any():
        raise AutoReIDError(f"{path}: labels below 1: expected 1 or more")
    return protocol


def whole_numbers(array: np.ndarray) -> np.ndarray:
    """Convert MATLAB's numbers, mostly floating-point, to int64; ValueError if they are not whole."""
    with np.errstate(invalid="ignore"):  # NaN
        numbers = array.astype(np.int64)
    if array.dtype == object or not np.array_equal(numbers, array):
        raise ValueError(f"{array.dtype} values that are not whole numbers")
    return numbers


class _MatImages:
    """Decoder of records from the cell arrays of ``cuhk-03.mat``, a MATLAB v7.3 (HDF5) file.

    ``labeled`` and ``detected`` are 5 x 1 cell arrays, one cell per camera pair. Each cell is a persons x 10
    array of H x W x 3 images (1-5 by the first camera, 6-10 by the second), some of them empty. HDF5
    transposes every MATLAB array.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()  # the file is opened once; HDF5 itself reads one image at a time
        self._pairs: dict[str, list[np.ndarray]] = {}
        self._file: Any = None  # h5py.File, opened at the first image

    def __call__(self, record: ImageRecord) -> Image.Image:
        boxes, name = record.path.split("/")
        match = NAME.fullmatch(name)
        if not match:
            raise ValueError(f"{name} is not the name of an image in {IMAGES}")
        pair, person, view, number = (int(part) for part in match.groups())
        if view != (1 if number <= 5 else 2):
            raise ValueError(f"{name}: expected images 1-5 of view 1 and images 6-10 of view 2")
        with self._lock:
            import h5py

            if self._file is None:
                self._file = h5py.File(self._path, "r")
            if boxes not in self._pairs:
                if not isinstance(self._file.get(boxes, getlink=True), h5py.HardLink):
                    raise ValueError(f"{boxes} is not in this file")
                self._pairs[boxes] = [self._read(cell) for cell in self._read(boxes).reshape(-1)]
            pixels = self._read(self._pairs[boxes][pair - 1][number - 1, person - 1])
        if pixels.ndim != 3 or pixels.dtype != np.uint8:
            raise ValueError("an empty cell")
        return Image.fromarray(np.ascontiguousarray(pixels.transpose(2, 1, 0)))

    def _read(self, name: Any) -> np.ndarray:
        """Read an array, given its name or a reference to it; ValueError if another file holds its bytes."""
        array = self._file[name]
        if array.external or array.is_virtual:
            raise ValueError("its bytes are in another file")
        return np.asarray(array)
