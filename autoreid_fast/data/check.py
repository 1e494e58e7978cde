"""What a data set holds, counted: the page that ``autoreid-fast data check`` prints."""

from collections.abc import Sequence
from dataclasses import dataclass

from autoreid_fast.data.cache import Progress, decode
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.dataset import DISTRACTOR, JUNK, Dataset, ImageRecord, identities, some
from autoreid_fast.data.load import load_dataset


@dataclass(frozen=True)
class SplitCounts:
    """One split: numbers of images, of identities and cameras among them, and of images of nobody."""

    images: int
    identities: int
    cameras: int
    distractors: int
    junk: int


@dataclass(frozen=True)
class DataReport:
    """Counts of each split, and by name all that is wrong.

    ``unmatched`` are queries whose identity the gallery shows from no other camera. ``unreadable`` holds
    (path, reason), None where no image was decoded.
    """

    name: str
    root: str
    splits: dict[str, SplitCounts]
    unparsed: tuple[str, ...]
    unmatched: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...] | None

    def table(self) -> str:
        """The report as text, a line a split."""
        columns = list(SplitCounts.__dataclass_fields__)
        lines = [f"{self.name} in {self.root}", " " * 8 + "".join(f"{column:>13}" for column in columns)]
        for split, counts in self.splits.items():
            lines.append(f"{split:8}" + "".join(f"{getattr(counts, column):13,}" for column in columns))
        lines.append(_line("names that do not parse", self.unparsed))
        lines.append(_line("queries without a match", self.unmatched))
        if self.unreadable is not None:
            lines.append(
                _line("unreadable images", [f"{path} ({reason})" for path, reason in self.unreadable])
            )
        return "\n".join(lines)


def check_dataset(
    config: DataConfig, decode_images: bool = False, progress: Progress | None = None
) -> DataReport:
    """Read the data set of ``config`` and count what it holds; with ``decode_images`` decode every image.

    Raises:
        AutoReIDError: as ``load_dataset``; what the report counts is no error here, however much of it.
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
    found = []
    for index, image in enumerate(decode(dataset, records, config.height, config.width)):
        if isinstance(image, str):
            found.append((records[index].path, image))
        if progress:
            progress(index + 1, len(records))
    return tuple(found)


def _line(what: str, names: Sequence[str]) -> str:
    return f"{what}: {len(names)}" + (f" ({some(names)})" if names else "")
