"""Report on a data set: its counts and its problems, printed by ``autoreid-fast data check``."""

from collections.abc import Sequence
from dataclasses import dataclass

from autoreid_fast.data.cache import Progress, decode
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.dataset import DISTRACTOR, JUNK, Dataset, ImageRecord, identities, some
from autoreid_fast.data.load import load_dataset


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
        unreadable: (path, reason) of each image that cannot be read; None if no image was decoded.
    """

    name: str
    root: str
    splits: dict[str, SplitCounts]
    unparsed: tuple[str, ...]
    unmatched: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...] | None

    def table(self) -> str:
        """Format the report as text, one line per split."""
        columns = list(SplitCounts.__dataclass_fields__)
        lines = [f"{self.name} in {self.root}", " " * 8 + "".join(f"{column:>13}" for column in columns)]
        for split, counts in self.splits.items():
            lines.append(f"{split:8}" + "".join(f"{getattr(counts, column):13,}" for column in columns))
        lines.append(_line("names that cannot be parsed", self.unparsed))
        lines.append(_line("queries without a match", self.unmatched))
        if self.unreadable is not None:
            lines.append(
                _line("unreadable images", [f"{path} ({reason})" for path, reason in self.unreadable])
            )
        return "\n".join(lines)


def check_dataset(
    config: DataConfig, decode_images: bool = False, progress: Progress | None = None
) -> DataReport:
    """Read the data set of ``config`` and count its images; with ``decode_images``, decode every image.

    Raises:
        AutoReIDError: as `load_dataset`. Problems that the report counts are not errors here.
    """
    dataset = load_dataset(config)
    splits = {"train": dataset.train, "query": dataset.query, "gallery": dataset.gallery}
    return DataReport(
        name=dataset.name,
        root=str(dataset.root),
        splits={split: _count(records) for split, records in splits.items()},
        unparsed=dataset.unparsed,
        unmatched=tuple(record.path for record in dataset.unmatched_queries()),
        unreadable=_unreadable(dataset, config, progress) if decode_images else None,
    )


def _count(records: Sequence[ImageRecord]) -> SplitCounts:
    return SplitCounts(
        images=len(records),
        identities=len(identities(records)),
        cameras=len({record.camera for record in records}),
        distractors=sum(record.pid == DISTRACTOR for record in records),
        junk=sum(record.pid == JUNK for record in records),
    )


def _unreadable(
    dataset: Dataset, config: DataConfig, progress: Progress | None
) -> tuple[tuple[str, str], ...]:
    by_path = {record.path: record for record in (*dataset.train, *dataset.query, *dataset.gallery)}
    records = list(by_path.values())
    unreadable = []
    for index, image in enumerate(decode(dataset, records, config.height, config.width)):
        if isinstance(image, str):
            unreadable.append((records[index].path, image))
        if progress:
            progress(index + 1, len(records))
    return tuple(unreadable)


def _line(problem: str, names: Sequence[str]) -> str:
    return f"{problem}: {len(names)}" + (f" ({some(names)})" if names else "")
