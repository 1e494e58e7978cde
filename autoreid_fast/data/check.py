"""Report on a data set: its counts and its problems, printed by ``autoreid-fast data check``."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autoreid_fast.data.cache import Progress, check_share, decode
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.copies import copies_in_both
from autoreid_fast.data.dataset import DISTRACTOR, JUNK, Dataset, ImageRecord, identities, some
from autoreid_fast.data.load import SPLITS, read_dataset
from autoreid_fast.errors import AutoReIDError


@dataclass(frozen=True)
class SplitCounts:
    """Counts of one split: images, identities, cameras, and the images that are distractors and junk."""

    images: int
    identities: int
    cameras: int
    distractors: int
    junk: int


@dataclass(frozen=True)
class DataReport:
    """Counts of each split, and the names behind each problem.

    Attributes:
        name: Name of the data set.
        root: Its folder.
        splits: Counts by split.
        unparsed: Names that cannot be parsed.
        unmatched: Queries without a match.
        in_both: An image of each identity that is both trained on and tested on.
        copies: Each training image whose file is a copy of an image to test on, and that image.
        decoded: Number of images that were decoded: all of them, or the first of each split and those whose
            files are missing.
        unreadable: (path, reason) of each of these that cannot be read.
        examples: Three images of each split, and how their names are understood.
        failure: Why search and train would refuse the data set; empty if they would not.
    """

    name: str
    root: str
    splits: dict[str, SplitCounts]
    unparsed: tuple[str, ...]
    unmatched: tuple[str, ...]
    in_both: tuple[str, ...]
    copies: tuple[str, ...]
    decoded: int
    unreadable: tuple[tuple[str, str], ...]
    examples: tuple[str, ...]
    failure: str

    def table(self) -> str:
        """Format the report as text, one line per split."""
        columns = list(SplitCounts.__dataclass_fields__)
        lines = [f"{self.name} in {self.root}", " " * 8 + "".join(f"{column:>13}" for column in columns)]
        for split, counts in self.splits.items():
            lines.append(f"{split:8}" + "".join(f"{getattr(counts, column):13,}" for column in columns))
        lines += self.examples
        lines.append(_line("names that cannot be parsed", self.unparsed))
        lines.append(_line("queries without a match", self.unmatched))
        lines.append(_line("people in both train and test", self.in_both))
        lines.append(_line("files in both train and test", self.copies))
        unreadable = [f"{path} ({reason})" for path, reason in self.unreadable]
        lines.append(_line("unreadable images", unreadable, f" of {self.decoded:,} decoded"))
        return "\n".join(lines)


def check_dataset(
    config: DataConfig, decode_images: bool = False, progress: Progress | None = None
) -> DataReport:
    """Read the data set of ``config`` and count its images.

    Args:
        config: The data set.
        decode_images: Decode every image; otherwise the first of each split and those without a file.
        progress: Called after each decoded image.

    Raises:
        AutoReIDError: as `load_dataset`. Problems that the report counts are not errors here.
    """
    dataset = read_dataset(config, ("query", "gallery") if config.tests_only else SPLITS)
    splits = {"train": dataset.train, "query": dataset.query, "gallery": dataset.gallery}
    by_path = {record.path: record for records in splits.values() for record in records}
    suspects = list(by_path.values()) if decode_images else _suspects(dataset, splits.values())
    unreadable = _unreadable(dataset, suspects, config, progress)
    return DataReport(
        name=dataset.name,
        root=str(dataset.root),
        splits={split: _count(records) for split, records in splits.items()},
        unparsed=dataset.unparsed,
        unmatched=tuple(record.path for record in dataset.unmatched_queries()),
        in_both=_in_both(dataset),
        copies=tuple(f"{path} = {copy}" for path, copy in copies_in_both(dataset).items()),
        decoded=len(suspects),
        unreadable=tuple(unreadable.items()),
        examples=tuple(example for split in splits for example in _examples(dataset, split, splits[split])),
        failure=_failure(
            dataset,
            [records for records in splits.values() if records],
            unreadable,
            config.max_unreadable_share,
        ),
    )


def _in_both(dataset: Dataset) -> tuple[str, ...]:
    """The first training image of each identity that is tested on as well."""
    shared = dataset.trained_and_tested()
    first = {record.pid: record.path for record in reversed(dataset.train) if record.pid in shared}
    return tuple(first[pid] for pid in sorted(first))


def _examples(dataset: Dataset, split: str, records: Sequence[ImageRecord]) -> list[str]:
    """How the names of the first, the middle and the last image of a split are understood."""
    shown = sorted({0, len(records) // 2, len(records) - 1}) if records else []
    return [
        f"{split}: {some([record.path])} -> pid {_named(record.pid, dataset.pid_names)}, "
        f"camera {_named(record.camera, dataset.camera_names)}"
        for record in (records[index] for index in shown)
    ]


def _named(number: int, names: Mapping[int, str]) -> str:
    return f"{number} ({some([names[number]])})" if number in names else str(number)


def _suspects(dataset: Dataset, splits: Iterable[Sequence[ImageRecord]]) -> list[ImageRecord]:
    """The first record of each split, and those without a file; a reader's own names may need none."""
    suspects = {record.path: record for records in splits for record in records[:1]}
    for records in splits:
        suspects |= {record.path: record for record in records if not dataset.file_of(record).is_file()}
    return list(suspects.values())


def _failure(
    dataset: Dataset,
    splits: Iterable[Sequence[ImageRecord]],
    unreadable: Mapping[str, str],
    max_share: float,
) -> str:
    """The error that decoding the splits, or the first evaluation, would end with."""
    for records in splits:
        lost = [(record.path, unreadable[record.path]) for record in records if record.path in unreadable]
        try:
            check_share(dataset, lost, len(records), max_share)
        except AutoReIDError as error:
            return str(error)
    if dataset.query and len(dataset.unmatched_queries()) == len(dataset.query):
        return f"{dataset.name}: no query has a match in the gallery: no other camera shows the person"
    return ""


def _count(records: Sequence[ImageRecord]) -> SplitCounts:
    return SplitCounts(
        images=len(records),
        identities=len(identities(records)),
        cameras=len({record.camera for record in records}),
        distractors=sum(record.pid == DISTRACTOR for record in records),
        junk=sum(record.pid == JUNK for record in records),
    )


def _unreadable(
    dataset: Dataset, records: Sequence[ImageRecord], config: DataConfig, progress: Progress | None
) -> dict[str, str]:
    """Decode ``records``; return the reason for each path that cannot be read."""
    unreadable = {}
    for index, image in enumerate(decode(dataset, records, config.height, config.width)):
        if isinstance(image, str):
            unreadable[records[index].path] = image
        if progress:
            progress(index + 1, len(records))
    return unreadable


def _line(problem: str, names: Sequence[str], more: str = "") -> str:
    return f"{problem}: {len(names)}{more}" + (f" ({some(names)})" if names else "")
