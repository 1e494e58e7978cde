"""From a ``DataConfig`` to the data set it names, checked before any work starts."""

import logging

from autoreid_fast.data.config import DATASETS, DataConfig
from autoreid_fast.data.dataset import Dataset, some
from autoreid_fast.errors import AutoReIDError

log = logging.getLogger(__name__)


def load_dataset(config: DataConfig) -> Dataset:
    """Read the records of the data set of ``config``; no image is opened.

    Logs one line each for names that do not parse and for queries that no gallery image can match.

    Raises:
        AutoReIDError: no root; a folder or file of the layout missing; a split empty; or nothing parses.
    """
    dataset = DATASETS[config.kind].builder(config)
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
