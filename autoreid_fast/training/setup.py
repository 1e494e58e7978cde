"""What a run needs before its first step: device, decoded images and labels."""

from typing import NamedTuple
from zlib import crc32

import torch
from pydantic import Field

from autoreid_fast.data.batches import relabel
from autoreid_fast.data.cache import ImageCache
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.dataset import Dataset
from autoreid_fast.data.decode import decoded
from autoreid_fast.distributed.collectives import check_same
from autoreid_fast.distributed.group import main_first
from autoreid_fast.schema import Config


class BatchConfig(Config):
    """The batch of the class-balanced sampler (Sec. 3.2): identities, and images of each."""

    identities: int = Field(
        4, ge=2, description="P: identities in a batch (design: 4 in search, 8 in training)."
    )
    images: int = Field(4, ge=2, description="K: images of each identity (paper: 4).")


class LabeledImages(NamedTuple):
    """Decoded images, their labels (N,) int64 in 0..identities-1, and how many identities there are."""

    cache: ImageCache
    labels: torch.Tensor
    identities: int


def training_images(dataset: Dataset, config: DataConfig) -> LabeledImages:
    """The training split, decoded and labeled; equal in every process."""
    cache = main_first(lambda: decoded(dataset, dataset.train, config))
    labels = relabel(cache.records)
    check_same("training images", f"{len(labels)} of checksum {crc32(repr(cache.records).encode())}")
    return LabeledImages(cache, labels, int(labels.max()) + 1)
