"""Market-1501 (Zheng et al., ICCV 2015), as released, and its 500,000 distractors."""

import re
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from autoreid_fast.data.config import DataConfig, register_dataset
from autoreid_fast.data.dataset import DISTRACTOR, Dataset, ImageRecord, require_parsed
from autoreid_fast.data.images import files_below, require_folder, require_layout
from autoreid_fast.data.walk import list_images
from autoreid_fast.errors import AutoReIDError

LAYOUT = "bounding_box_train/, bounding_box_test/ and query/ with names like 0001_c1s1_001051_00.jpg"
NAME = re.compile(r"(-1|\d{1,9})_c(\d{1,9})(?:s\d+)?_\w+\.")
"""Names of Market-1501, DukeMTMC-reID (0001_c2_f0046182.jpg), CUHK03-NP and VeRi."""


class Market1501Config(DataConfig):
    """Market-1501 on disk."""

    distractors: Path | None = Field(
        None, description="Folder of the 500k distractors' images, added to the gallery."
    )


@register_dataset("market1501")
def read_market1501(config: Market1501Config) -> Dataset:
    """Market-1501: 12,936 images to train, 3,368 queries, a gallery of 19,732.

    The gallery keeps junk (pid -1) and distractors (pid 0); both are left out of ``train``. Where pid 0
    is a query, or trained on and in no gallery, people are counted from 0: all pids are one higher, and
    ``pid_names`` keeps them. ``config.distractors`` is the folder of the 500k extension that holds the
    images themselves (``images/`` in the release): every JPEG there joins the gallery with pid 0 and camera
    0, whatever its name, its path being the absolute one.

    Raises:
        AutoReIDError: ``root`` is not set, a folder is missing, or no name can be parsed.
    """
    return read_layout(config.root_folder, "market1501", config.distractors)


def read_layout(root: Path, name: str, distractors: Path | None = None) -> Dataset:
    """Read a data set called ``name`` in the layout of Market-1501; errors as in `read_market1501`."""
    folders = ("bounding_box_train", "query", "bounding_box_test")
    require_layout(root, folders, LAYOUT)
    unparsed: list[str] = []
    train, query, gallery = (_read_folder(root, folder, unparsed) for folder in folders)
    require_parsed(root, unparsed, len(train) + len(query) + len(gallery), "0001_c1s1_001051_00.jpg")
    pid_names = {}
    if _counted_from_zero(train, query, gallery):
        pid_names = {
            record.pid + 1: str(record.pid) for record in (*train, *query, *gallery) if record.pid >= 0
        }
        train, query, gallery = (_from_one(records) for records in (train, query, gallery))
    if distractors is not None:
        gallery += _read_distractors(distractors)
    return Dataset(
        name=name,
        root=root,
        train=tuple(record for record in train if record.pid > DISTRACTOR),
        query=tuple(query),
        gallery=tuple(gallery),
        read_image=files_below(root),
        unparsed=tuple(unparsed),
        pid_names=pid_names,
    )


def _counted_from_zero(*splits: list[ImageRecord]) -> bool:
    """Whether pid 0 is a person: it is searched for, or trained on and in no gallery."""
    train, query, gallery = ({record.pid for record in records} for records in splits)
    return DISTRACTOR in query or (DISTRACTOR in train and DISTRACTOR not in gallery)


def _from_one(records: list[ImageRecord]) -> list[ImageRecord]:
    """Number people from 1 who are counted from 0; junk stays junk."""
    return [replace(record, pid=record.pid + 1) if record.pid >= 0 else record for record in records]


def _read_folder(root: Path, folder: str, unparsed: list[str]) -> list[ImageRecord]:
    records = []
    for name in list_images(root / folder):
        # A prefix match: the release itself has a few names that end in .jpg.jpg.
        match = NAME.match(name)
        if match:
            records.append(ImageRecord(f"{folder}/{name}", int(match[1]), int(match[2])))
        else:
            unparsed.append(f"{folder}/{name}")
    return records


def _read_distractors(folder: Path) -> list[ImageRecord]:
    require_folder(folder, "the 500k images themselves in data.distractors")
    folder = folder.resolve()
    records = [ImageRecord(str(folder / name), DISTRACTOR, 0) for name in list_images(folder)]
    if not records:
        raise AutoReIDError(
            f"{folder}: no images in it; expected the 500k images themselves in data.distractors"
        )
    return records
