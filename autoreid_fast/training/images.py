"""Training images of a run: decoded, with the labels of their identities."""

from typing import NamedTuple
from zlib import crc32

import torch

from autoreid_fast.data.batches import relabel
from autoreid_fast.data.cache import ImageCache
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.dataset import Dataset
from autoreid_fast.data.load import decoded
from autoreid_fast.distributed.collectives import check_same
from autoreid_fast.distributed.group import main_first


class LabeledImages(NamedTuple):
    """Decoded images with their labels.

    Attributes:
        cache: N decoded images.
        labels: (N,) int64 in 0 .. identities - 1.
        identities: Number of identities.
    """

    cache: ImageCache
    labels: torch.Tensor
    identities: int


def training_images(dataset: Dataset, config: DataConfig) -> LabeledImages:
    """Decode and label the training split.

    Raises:
        AutoReIDError: the images cannot be decoded, or differ between the processes of the run.
    """
    cache = main_first(lambda: decoded(dataset, dataset.train, config))
    labels = relabel(cache.records)
    check_same("training images", f"{len(labels)} of checksum {crc32(repr(cache.records).encode())}")
    return LabeledImages(cache, labels, int(labels.max()) + 1)
