"""From a ``DataConfig`` to the data set it names, checked before any work starts."""

import logging
from pathlib import Path

from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.cuhk03 import read_cuhk03
from autoreid_fast.data.dataset import Dataset, some
from autoreid_fast.data.folder import read_folder
from autoreid_fast.data.market1501 import read_market1501
from autoreid_fast.data.msmt17 import read_msmt17
from autoreid_fast.errors import AutoReIDError

log = logging.getLogger(__name__)


def load_dataset(config: DataConfig) -> Dataset:
    """Read the records of the data set of ``config``; no image is opened.

    Logs one line each for names that do not parse and for queries that no gallery image can match.

    Raises:
        AutoReIDError: no root; a folder or file of the layout missing; a split empty; or nothing parses.
    """
    if config.root is None:
        raise AutoReIDError(
            "data.root is not set: give the folder that holds the data set (--data.root, or --root in `data`)"
        )
    dataset = _read(config, config.root.expanduser())
    for split in ("train", "query", "gallery"):
        if not getattr(dataset, split):
            raise AutoReIDError(f"{dataset.root}: no image for the {split} split of {dataset.name}")
    if dataset.unparsed:
        names = some(dataset.unparsed)
        log.warning("%s: left out %d names that do not parse: %s", dataset.name, len(dataset.unparsed), names)
    unmatched = [record.path for record in dataset.unmatched_queries()]
    if unmatched:
        log.warning("%s: %d queries have no match: %s", dataset.name, len(unmatched), some(unmatched))
    return dataset


def _read(config: DataConfig, root: Path) -> Dataset:
    match config.kind:
        case "market1501":
            return read_market1501(root, config.distractors)
        case "synthetic":
            return read_market1501(root, name="synthetic")
        case "cuhk03":
            return read_cuhk03(root, config.boxes)
        case "msmt17":
            return read_msmt17(root)
        case "folder":
            return read_folder(root, config)
