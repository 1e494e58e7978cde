"""What a run needs before its first step: device, decoded images and labels."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import nn

from autoreid_fast.data.batches import relabel
from autoreid_fast.data.cache import ImageCache, open_cache
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.dataset import Dataset, ImageRecord
from autoreid_fast.engine.progress import progress_bar
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.schema import Config

DeviceName = Literal["auto", "cpu", "cuda"]


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


def choose_device(name: DeviceName) -> torch.device:
    """The device of that name; ``auto`` is CUDA where there is one.

    Raises:
        AutoReIDError: CUDA is asked for where there is none.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise AutoReIDError("device is cuda, but torch sees no CUDA device here: use --device cpu or auto")
    return torch.device("cuda" if name != "cpu" and available else "cpu")


def place(model: nn.Module, device: torch.device) -> None:
    """Move ``model`` to ``device``, channels last: that takes a fifth off a supernet step on the CPU."""
    model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def decoded(dataset: Dataset, records: Sequence[ImageRecord], config: DataConfig) -> ImageCache:
    """The images of ``records`` at the config's size, from their cache, which is built where it must be."""
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


def training_images(dataset: Dataset, config: DataConfig) -> LabeledImages:
    """The training split, decoded and labeled."""
    cache = decoded(dataset, dataset.train, config)
    labels = relabel(cache.records)
    return LabeledImages(cache, labels, int(labels.max()) + 1)
