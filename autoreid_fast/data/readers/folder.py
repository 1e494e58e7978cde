"""Any tree of images, read by a regular expression over the paths."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field

from autoreid_fast.data.config import DataConfig, register_dataset
from autoreid_fast.data.dataset import Dataset, ImageRecord, require_parsed
from autoreid_fast.data.images import files_below, images_below, require_layout
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
    split_seed: int = Field(0, ge=0, description="Without split: seed of the split.")


@register_dataset("folder")
def read_folder(config: FolderConfig) -> Dataset:
    """Read every image below ``root`` whose posix path relative to it ``config.pattern`` is found in.

    The pattern's named groups: ``pid``, optionally ``camera``, optionally ``split`` (train, query or
    gallery). Without ``split`` the identities are divided by a seeded draw, and of those to test

    - with ``query_cameras`` and ``gallery_cameras``, the images of these cameras are query and gallery;
    - with cameras only, every image is a query and the gallery is all of them: the rule that a query's
      own identity and camera do not count takes the image itself out;
    - without cameras, a seeded ``query_share`` of each identity's images are queries, one at least and one
      left in the gallery at least.

    Numbers stay what they are, other names count from 1 in their sorted order. A pid of 0 or below stays
    (distractor, junk) only where it is in the gallery split alone; else 0 is one more identity and all are
    counted from 1. A set without cameras has camera 1 on its queries and camera 0 elsewhere, so that the
    rule never takes a match out.

    Raises:
        AutoReIDError: no such folder; the pattern is missing, malformed or lacks ``pid``; nothing matches;
            a split group of another name; too few identities; only one of the camera lists, or cameras
            asked for that the pattern does not name.
    """
    root = config.root_folder
    pattern = _compile(config)
    require_layout(root, (), "a tree of images")
    parsed, unparsed = _walk(root, pattern)
    require_parsed(root, unparsed, len(parsed), f"data.pattern {config.pattern}")
    if not parsed:
        raise AutoReIDError(f"{root}: no image below it; data.root must hold a tree of images")
    groups = pattern.groupindex
    cameras = _numbers([image.camera or "" for image in parsed]) if "camera" in groups else [0] * len(parsed)
    pids = _pids(parsed)
    records = [ImageRecord(p.path, pid, camera) for p, pid, camera in zip(parsed, pids, cameras, strict=True)]
    if "split" in groups:
        of_split = {
            name: [r for r, p in zip(records, parsed, strict=True) if p.split == name] for name in SPLITS
        }
        train, query, gallery = (of_split[name] for name in SPLITS)
    else:
        train, test = _split_identities(records, config)
        query, gallery = _split_test(test, config, "camera" in groups)
    if "camera" not in groups:
        query = [ImageRecord(record.path, record.pid, 1) for record in query]
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
    if not config.pattern:
        raise AutoReIDError(f"data.pattern is not set: give a regular expression, as {EXAMPLE}")
    try:
        pattern = re.compile(config.pattern)
    except (re.error, OverflowError, RecursionError) as error:  # a{99999999999} overflows, ((((... recurs
        raise AutoReIDError(
            f"data.pattern {config.pattern}: not a regular expression ({error}); one is {EXAMPLE}"
        ) from error
    named = set(pattern.groupindex)
    if "pid" not in named or named - {"pid", "camera", "split"}:
        raise AutoReIDError(
            f"data.pattern {config.pattern}: its named groups must be pid and optionally camera and split, "
            f"as in {EXAMPLE}"
        )
    lists = {"query_cameras": config.query_cameras, "gallery_cameras": config.gallery_cameras}
    given = [name for name, value in lists.items() if value is not None]
    if len(given) == 1:
        raise AutoReIDError(
            f"data.{given[0]} is set alone: set data.query_cameras and data.gallery_cameras both"
        )
    if given and "camera" not in named:
        raise AutoReIDError(f"data.query_cameras is set, but data.pattern {config.pattern} names no camera")
    return pattern


def _walk(root: Path, pattern: re.Pattern[str]) -> tuple[list[_Parsed], list[str]]:
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
            raise AutoReIDError(f"{root / path}: the split group reads {split}, not train, query or gallery")
        if "camera" in values and not values["camera"]:
            unparsed.append(path)
            continue
        parsed.append(_Parsed(path, values["pid"], values.get("camera"), split))
    return sorted(parsed, key=lambda image: image.path), sorted(unparsed)


def _numbers(names: Sequence[str]) -> list[int]:
    """Numbers for names: their own where all are different int32, else 1, 2, ... in sorted order."""
    different = set(names)
    try:
        own = {name: int(name) for name in different}
    except ValueError:
        own = {}
    if len(set(own.values())) != len(different) or any(abs(number) >= 2**31 for number in own.values()):
        own = {name: number for number, name in enumerate(sorted(different), 1)}
    return [own[name] for name in names]


def _pids(parsed: Sequence[_Parsed]) -> list[int]:
    pids = _numbers([image.pid for image in parsed])
    below = {image.split for image, pid in zip(parsed, pids, strict=True) if pid <= 0}
    if below <= {"gallery"} and min(pids) >= -1:
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
            f"{len(pids)} identities cannot be split into {count} to train on and the rest to test; "
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
