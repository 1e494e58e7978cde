"""Loading the data set of a config, with checks before any work starts, and decoding its images."""

import logging
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Literal, get_args

from autoreid_fast.data.cache import ImageCache, open_cache
from autoreid_fast.data.config import DATASETS, DataConfig
from autoreid_fast.data.dataset import Dataset, ImageRecord, some
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.progress import progress_bar
from autoreid_fast.schema import require_config

Split = Literal["train", "query", "gallery"]
SPLITS: tuple[Split, ...] = get_args(Split)

log = logging.getLogger(__name__)


def load_dataset(config: DataConfig, splits: Sequence[Split] = SPLITS) -> Dataset:
    """Read the records of the data set that ``config`` describes; no image is decoded.

    Logs a line if there are names that cannot be parsed, one if there are queries without a match, and one if
    people are both in train and in test. `data check` also compares the files by content, which reads a part
    of each.

    Args:
        config: The data set.
        splits: The splits that are needed.

    Raises:
        AutoReIDError: ``root`` is not set, a file or folder of the layout is missing, a split is empty, or
            no name can be parsed.

    Examples:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from PIL import Image
        >>> from autoreid_fast.data import DataConfig, load_dataset
        >>> with TemporaryDirectory() as folder:
        ...     for name in ("1_c1", "1_c2", "2_c1", "2_c2"):
        ...         Image.new("RGB", (16, 32)).save(Path(folder) / f"{name}.png")
        ...     config = DataConfig(kind="folder", root=folder, pattern=r"(?P<pid>\\d+)_c(?P<camera>\\d+)")
        ...     dataset = load_dataset(config)
        >>> dataset.train_identities, len(dataset.query), dataset.cameras
        (1, 2, 2)
        >>> len(dataset.train)
        2
    """
    dataset = read_dataset(config, splits)
    if dataset.unparsed:
        count, names = len(dataset.unparsed), some(dataset.unparsed)
        log.warning("%s: left out %d names that cannot be parsed: %s", dataset.name, count, names)
    unmatched = [record.path for record in dataset.unmatched_queries()]
    if unmatched:
        log.warning("%s: %d queries without a match: %s", dataset.name, len(unmatched), some(unmatched))
    shared = dataset.trained_and_tested()
    if shared:
        log.warning("%s: %d people are both in train and in test", dataset.name, len(shared))
    return dataset


def read_dataset(config: DataConfig, splits: Sequence[Split] = SPLITS) -> Dataset:
    """Read a data set as `load_dataset`, without a log."""
    require_config(config, DataConfig)
    dataset = DATASETS[config.kind].build(config)
    if not isinstance(dataset, Dataset):
        raise AutoReIDError(f"data set {config.kind}: expected a Dataset, got {type(dataset).__name__}")
    for split in SPLITS:
        _check_records(config.kind, split, getattr(dataset, split))
        if split in splits and not getattr(dataset, split):
            count, names = len(dataset.unparsed), some(dataset.unparsed)
            unparsed = f"; names that cannot be parsed: {count} ({names})" if count else ""
            raise AutoReIDError(
                f"{dataset.root}: no images for the {split} split of {dataset.name}{unparsed}"
            )
    return dataset


def _check_records(kind: str, split: str, records: Sequence[Any]) -> None:
    """Raise AutoReIDError unless a reader gave image records with whole numbers."""
    for index, record in enumerate(records):
        if not isinstance(record, ImageRecord):
            raise AutoReIDError(
                f"data set {kind}: {split}[{index}] is a {type(record).__name__}; expected an ImageRecord"
            )
        if not (isinstance(record.pid, Integral) and isinstance(record.camera, Integral)):
            raise AutoReIDError(
                f"data set {kind}: {split}[{index}] has pid {record.pid!r} and camera {record.camera!r}; "
                "expected integers"
            )


def decoded(dataset: Dataset, records: Sequence[ImageRecord], config: DataConfig) -> ImageCache:
    """Open the image cache of ``records`` at the config's size, with a progress bar; build it if needed."""
    with progress_bar(f"decoding {dataset.name}") as show_done:
        return open_cache(
            dataset,
            records,
            config.height,
            config.width,
            config.cache_dir,
            config.max_unreadable_share,
            show_done,
        )
