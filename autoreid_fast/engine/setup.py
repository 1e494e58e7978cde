"""What a run needs before its first step: device, decoded images and labels."""

import os
from collections.abc import Sequence
from typing import Literal, NamedTuple
from zlib import crc32

import torch
from pydantic import Field
from torch import nn

from autoreid_fast.data.batches import relabel
from autoreid_fast.data.cache import ImageCache, open_cache
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.dataset import Dataset, ImageRecord
from autoreid_fast.engine.distributed import check_same, main_first
from autoreid_fast.engine.progress import progress_bar
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.processes import share
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
    """The device of that name; ``auto`` is CUDA where there is one, and in several processes each its own.

    Raises:
        AutoReIDError: CUDA is asked for where there is none, or fewer devices than processes on this host.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise AutoReIDError("device is cuda, but torch sees no CUDA device here: use --device cpu or auto")
    if name == "cpu" or not available:
        return torch.device("cpu")
    here, devices = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if share().processes > 1 and here > devices:
        raise AutoReIDError(
            f"{here} processes on this host, which has {devices} CUDA devices: start torchrun with "
            f"--nproc-per-node {devices}, or use --device cpu"
        )
    return torch.device("cuda")


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
    """The training split, decoded and labeled; equal in every process."""
    cache = main_first(lambda: decoded(dataset, dataset.train, config))
    labels = relabel(cache.records)
    check_same("training images", f"{len(labels)} of checksum {crc32(repr(cache.records).encode())}")
    return LabeledImages(cache, labels, int(labels.max()) + 1)
