"""Any tree of images, read by a regular expression over their paths."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import Field

from autoreid_fast.data.config import DataConfig, register_dataset
from autoreid_fast.data.dataset import DISTRACTOR, JUNK, Dataset, ImageRecord, require_parsed, some
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
        0.5,
        ge=0,
        lt=1,
        description="Without split: fraction of the identities to train on; 0 for a set to test on only.",
    )
    train_identities: int | None = Field(
        None, ge=0, description="Without split: number of identities to train on, instead of train_share."
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

    @property
    def tests_only(self) -> bool:
        """Whether nobody is trained on by choice."""
        return self.train_identities == 0 or (self.train_identities is None and self.train_share == 0)

    def to_test_on(self) -> Self:
        """Copy this config without people to train on."""
        return self.model_copy(update={"train_identities": None, "train_share": 0.0})


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

    Numbers keep their values; where one is a name, or spelled in two ways (3, 03), all are numbered from 1 in
    sorted order, and ``pid_names`` and ``camera_names`` keep them. A pid of 0 or -1 keeps its meaning
    (distractor, junk), beside names too, if it occurs in the gallery split only; otherwise it is a person and
    all are numbered from 1. In a data set without cameras, queries have camera 1 and all other images camera
    0, so that every match counts.

    A ``pattern`` that begins with the group ``split`` is found at the beginning of names only: not
    ``query`` in ``multi-query``.

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
    pids = _pids(parsed)
    has_cameras = "camera" in pattern.groupindex
    cameras = _numbered({image.camera or "" for image in parsed}) if has_cameras else {"": 0}
    records = [ImageRecord(image.path, pids[image.pid], cameras[image.camera or ""]) for image in parsed]
    _check_cameras(config, cameras)
    train, query, gallery = _splits(parsed, records, config, set(pattern.groupindex))
    return Dataset(
        name=root.resolve().name,
        root=root,
        train=tuple(train),
        query=tuple(query),
        gallery=tuple(gallery),
        read_image=files_below(root),
        unparsed=tuple(unparsed),
        pid_names=_names(pids),
        camera_names=_names(cameras),
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
        match = _find(pattern, path)
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


def _find(pattern: re.Pattern[str], path: str) -> re.Match[str] | None:
    """Find ``pattern``; where it begins with the group split, this must be the beginning of a name."""
    for match in pattern.finditer(path):
        begins_with_split = "split" in pattern.groupindex and match.start("split") == match.start()
        if not begins_with_split or match.start() == 0 or path[match.start() - 1] == "/":
            return match
    return None


def _splits(
    parsed: Sequence[_Parsed], records: Sequence[ImageRecord], config: FolderConfig, groups: set[str]
) -> tuple[list[ImageRecord], list[ImageRecord], list[ImageRecord]]:
    """Divide the images into train, query and gallery."""
    has_cameras = "camera" in groups
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


def _numbered(names: set[str]) -> dict[str, int]:
    """Number the names: by their values if these are distinct int32, otherwise from 1 in sorted order."""
    values = {name: value for name in names if (value := _value(name)) is not None and abs(value) < 2**31}
    if len(set(values.values())) == len(names):
        return values
    return {name: number for number, name in enumerate(sorted(names), 1)}


def _value(name: str) -> int | None:
    try:
        return int(name)
    except ValueError:  # a name, or thousands of digits
        return None


def _pids(parsed: Sequence[_Parsed]) -> dict[str, int]:
    """Number the people: junk and distractors of a gallery keep their meaning, all others are above 0."""
    splits_of: dict[str, set[str | None]] = defaultdict(set)
    for image in parsed:
        splits_of[image.pid].add(image.split)
    meant = {name: value for name in splits_of if (value := _value(name)) in (JUNK, DISTRACTOR)}
    if any(splits_of[name] != {"gallery"} for name in meant):
        meant = {}
    pids = _numbered(splits_of.keys() - meant.keys())
    if min(pids.values(), default=1) <= DISTRACTOR:
        pids = {name: number for number, name in enumerate(sorted(pids, key=pids.__getitem__), 1)}
    return {**pids, **meant}


def _names(numbers: Mapping[str, int]) -> dict[int, str]:
    """The names that are not these numbers."""
    return {number: name for name, number in numbers.items() if name and _value(name) != number}


def _check_cameras(config: FolderConfig, cameras: Mapping[str, int]) -> None:
    """Check that the cameras of queries and gallery exist."""
    known = ", ".join(
        str(number) if _value(name) == number else f"{number} ({name})"
        for name, number in sorted(cameras.items(), key=lambda camera: camera[1])[:20]
    )
    for field, chosen in (
        ("query_cameras", config.query_cameras),
        ("gallery_cameras", config.gallery_cameras),
    ):
        missing = sorted(set(chosen or ()) - set(cameras.values()))
        if missing:
            raise AutoReIDError(
                f"data.{field}: no images of camera {some([*map(str, missing)])}; expected some of {known}"
            )


def _split_identities(
    records: Sequence[ImageRecord], config: FolderConfig
) -> tuple[list[ImageRecord], list[ImageRecord]]:
    pids = sorted({record.pid for record in records})
    count = config.train_identities
    if count is None:
        count = round(config.train_share * len(pids))
    if count >= len(pids) or (count == 0 and not config.tests_only):
        raise AutoReIDError(
            f"{count} of {len(pids)} identities to train on: expected at least 1, and at least 1 to test on; "
            "change data.train_identities or data.train_share (0 for a set to test on only)"
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
