"""Any tree of images, read by a regular expression over their paths."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from autoreid_fast.data.config import DataConfig, register_dataset
from autoreid_fast.data.dataset import Dataset, ImageRecord, require_parsed
from autoreid_fast.data.images import files_below, require_layout
from autoreid_fast.data.walk import images_below
from autoreid_fast.errors import AutoReIDError

SPLITS = ("train", "query", "gallery")
EXAMPLE = r"(?P<pid>\d+)_c(?P<camera>\d+)"


@dataclass(frozen=True)
class _Parsed:
    path: str
    pid: str
    camera: str | None
    split: str | None


class FolderConfig(DataConfig):
    """Any tree of images on disk, read by a regular expression over the paths."""

    pattern: str | None = Field(
        None,
        description="Regular expression searched in each image's path relative to root, with named groups "
        "pid, optionally camera, optionally split (train, query or gallery).",
    )
    train_share: float = Field(
        0.5, gt=0, lt=1, description="Without split: fraction of the identities to train on."
    )
    train_identities: int | None = Field(
        None, gt=0, description="Without split: number of identities to train on, instead of train_share."
    )
    query_cameras: tuple[int, ...] | None = Field(
        None, description="Without split: test images of these cameras are the queries."
    )
    gallery_cameras: tuple[int, ...] | None = Field(
        None, description="Without split: test images of these cameras are the gallery."
    )
    query_share: float = Field(
        0.25,
        gt=0,
        lt=1,
        description="Without split and cameras: fraction of each test identity's images that are queries.",
    )
    split_seed: int = Field(0, ge=0, le=2**63 - 1, description="Without split: seed of the split.")


@register_dataset("folder")
def read_folder(config: FolderConfig) -> Dataset:
    """Any tree of images, with a regular expression that finds identity and camera in each path.

    The named groups of ``config.pattern`` are ``pid``, optionally ``camera``, and optionally ``split``
    (train, query or gallery). Without ``split``, a seeded draw chooses the identities to train on. The
    images of the others are split in one of three ways:

    - with ``query_cameras`` and ``gallery_cameras``, by these cameras;
    - with cameras only, every image is a query and all of them are the gallery; a query's own identity and
      camera do not count, so that the image itself does not count either;
    - without cameras, a seeded ``query_share`` of each identity's images are queries; at least one is a
      query and at least one stays in the gallery.

    Numbers keep their values; other names are numbered from 1 in sorted order. A pid of 0 or below keeps its
    meaning (distractor, junk) only if it occurs in the gallery split only; otherwise 0 is one more identity
    and all are numbered from 1. In a data set without cameras, queries have camera 1 and all other images
    camera 0, so that every match counts.

    Raises:
        AutoReIDError: there is no such folder; the pattern is missing, malformed or lacks ``pid``; no path
            can be parsed; a split group has another name; there are too few identities; or the lists of
            cameras do not fit each other or the pattern.
    """
    root = config.root_folder
    pattern = _compile(config)
    require_layout(root, (), "a tree of images")
    parsed, unparsed = _walk(root, pattern)
    require_parsed(root, unparsed, len(parsed), f"data.pattern {config.pattern}")
    if not parsed:
        raise AutoReIDError(f"{root}: no images below it; expected a tree of images in data.root")
    train, query, gallery = _splits(parsed, config, set(pattern.groupindex))
    return Dataset(
        name=root.resolve().name,
        root=root,
        train=tuple(train),
        query=tuple(query),
        gallery=tuple(gallery),
        read_image=files_below(root),
        unparsed=tuple(unparsed),
    )


def _compile(config: FolderConfig) -> re.Pattern[str]:
    """Compile the pattern; check its groups, and that the lists of cameras fit it."""
    if not config.pattern:
        raise AutoReIDError(f"data.pattern is not set: give a regular expression like {EXAMPLE}")
    try:
        pattern = re.compile(config.pattern)
    except (re.error, OverflowError, RecursionError) as error:  # a{99999999999} overflows, ((((... recurs
        raise AutoReIDError(
            f"data.pattern {config.pattern}: not a regular expression ({error}); give one like {EXAMPLE}"
        ) from error
    groups = set(pattern.groupindex)
    if "pid" not in groups or groups - {"pid", "camera", "split"}:
        raise AutoReIDError(
            f"data.pattern {config.pattern}: expected named groups pid and optionally camera and split, as "
            f"in {EXAMPLE}"
        )
    lists = {"query_cameras": config.query_cameras, "gallery_cameras": config.gallery_cameras}
    given = [name for name, value in lists.items() if value is not None]
    if len(given) == 1:
        raise AutoReIDError(
            f"only data.{given[0]} is set: set both data.query_cameras and data.gallery_cameras"
        )
    if given and "camera" not in groups:
        raise AutoReIDError(
            f"data.query_cameras is set, but data.pattern {config.pattern} has no group camera: add it"
        )
    return pattern


def _walk(root: Path, pattern: re.Pattern[str]) -> tuple[list[_Parsed], list[str]]:
    """Parse the paths of all images below ``root``; return the parsed and the unparsed, both sorted."""
    parsed: list[_Parsed] = []
    unparsed: list[str] = []
    for path in images_below(root):
        match = pattern.search(path)
        values = match.groupdict() if match else {}
        if not values.get("pid"):
            unparsed.append(path)
            continue
        split = values.get("split")
        if "split" in values and split not in SPLITS:
            raise AutoReIDError(f"{root / path}: the split is {split}: expected train, query or gallery")
        if "camera" in values and not values["camera"]:
            unparsed.append(path)
            continue
        parsed.append(_Parsed(path, values["pid"], values.get("camera"), split))
    return parsed, unparsed


def _splits(
    parsed: Sequence[_Parsed], config: FolderConfig, groups: set[str]
) -> tuple[list[ImageRecord], list[ImageRecord], list[ImageRecord]]:
    """Divide the images into train, query and gallery."""
    has_cameras = "camera" in groups
    cameras = _numbers([image.camera or "" for image in parsed]) if has_cameras else [0] * len(parsed)
    pids = _pids(parsed)
    records = [ImageRecord(p.path, pid, camera) for p, pid, camera in zip(parsed, pids, cameras, strict=True)]
    if "split" in groups:
        train, query, gallery = (
            [record for record, image in zip(records, parsed, strict=True) if image.split == split]
            for split in SPLITS
        )
    else:
        train, test = _split_identities(records, config)
        query, gallery = _split_test(test, config, has_cameras)
    if not has_cameras:
        query = [ImageRecord(record.path, record.pid, 1) for record in query]
    return train, query, gallery


def _numbers(names: Sequence[str]) -> list[int]:
    """Number the names: by their own values if these are distinct int32, otherwise from 1 in sorted order."""
    distinct = set(names)
    try:
        values = {name: int(name) for name in distinct}
    except ValueError:
        values = {}
    if len(set(values.values())) != len(distinct) or any(abs(value) >= 2**31 for value in values.values()):
        values = {name: number for number, name in enumerate(sorted(distinct), 1)}
    return [values[name] for name in names]


def _pids(parsed: Sequence[_Parsed]) -> list[int]:
    pids = _numbers([image.pid for image in parsed])
    splits_without_identity = {image.split for image, pid in zip(parsed, pids, strict=True) if pid <= 0}
    if splits_without_identity <= {"gallery"} and min(pids) >= -1:
        return pids
    order = {pid: number for number, pid in enumerate(sorted(set(pids)), 1)}
    return [order[pid] for pid in pids]


def _split_identities(
    records: Sequence[ImageRecord], config: FolderConfig
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    pids = sorted({record.pid for record in records})
    count = config.train_identities or round(config.train_share * len(pids))
    if not 0 < count < len(pids):
        raise AutoReIDError(
            f"{count} of {len(pids)} identities to train on: expected at least 1, and at least 1 to test on; "
            "change data.train_identities or data.train_share"
        )
    random = np.random.default_rng(config.split_seed)
    chosen = set(random.permutation(pids)[:count].tolist())
    return [r for r in records if r.pid in chosen], [r for r in records if r.pid not in chosen]


def _split_test(
    test: Sequence[ImageRecord], config: FolderConfig, has_cameras: bool
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    if config.query_cameras is not None and config.gallery_cameras is not None:
        query = [record for record in test if record.camera in config.query_cameras]
        return query, [record for record in test if record.camera in config.gallery_cameras]
    if has_cameras:
        return list(test), list(test)
    by_pid: dict[int, list[ImageRecord]] = defaultdict(list)
    for record in test:
        by_pid[record.pid].append(record)
    random = np.random.default_rng([config.split_seed, 1])
    chosen: set[str] = set()
    for pid in sorted(by_pid):
        images = by_pid[pid]
        count = min(max(1, round(config.query_share * len(images))), len(images) - 1)
        chosen |= {images[index].path for index in random.permutation(len(images))[:count]}
    return [r for r in test if r.path in chosen], [r for r in test if r.path not in chosen]
