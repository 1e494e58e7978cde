"""Batches on the device from the uint8 image cache: augmented for training, in order for evaluation."""

from collections.abc import Iterator, Sequence
from itertools import islice
from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from autoreid_fast.data.cache import ImageCache
from autoreid_fast.data.dataset import ImageRecord
from autoreid_fast.data.sampler import IdentitySampler
from autoreid_fast.distributed.processes import WHOLE, Shard
from autoreid_fast.ops import batch_from_cache
from autoreid_fast.schema import Config


class AugmentationConfig(Config):
    """Augmentation of training images. Paper: random horizontal flipping and cropping, without numbers."""

    flip_probability: float = Field(
        0.5, ge=0, le=1, description="Probability of a horizontal flip; 0.5 is usual."
    )
    crop_padding: int = Field(
        10,
        ge=0,
        description="Black pixels added on each side before a random crop back to the size; 10 is usual.",
    )


def relabel(records: Sequence[ImageRecord]) -> Tensor:
    """Number the identities of ``records``: labels (N,) int64 in 0..I-1, in the order of the pids.

    Examples:
        >>> from autoreid_fast.data import ImageRecord, relabel
        >>> relabel([ImageRecord("a.jpg", 7, 1), ImageRecord("b.jpg", 2, 1), ImageRecord("c.jpg", 7, 3)])
        tensor([1, 0, 1])
    """
    pids = torch.tensor([record.pid for record in records], dtype=torch.int64)
    return torch.unique(pids, return_inverse=True)[1]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy ``tensor`` to ``device``; to CUDA through page-locked memory, so that the host does not wait."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class TrainBatches:
    """Augmented batches of the images that a sampler draws, the same for the same (seed, epoch).

    The whole cache is copied to ``device`` once, as uint8, and shared with other batches of that cache. If
    it does not fit (`ImageCache.on`), the images of each batch are copied when they are needed.

    Args:
        cache: N decoded images.
        labels: (N,) int64.
        sampler: Draws the indices of each batch.
        augmentation: Flip and crop.
        device: Device of the batches.
        seed: Seed of the flips and crops; the sampler has its own.
        shard: This process's rows of every batch: some of the identities with all of their images. Random
            numbers are drawn for the whole batch, so that the shards together are the batch of one process.
    """

    def __init__(
        self,
        cache: ImageCache,
        labels: Tensor,
        sampler: IdentitySampler,
        augmentation: AugmentationConfig,
        device: torch.device | str,
        seed: int,
        shard: Shard = WHOLE,
    ) -> None:
        self._device = torch.device(device)
        self._images = cache.on(device)
        self._records = cache.records
        self._labels = labels.cpu()
        self._sampler = sampler
        self._augmentation = augmentation
        self._seed = seed
        self._shard = shard

    def __len__(self) -> int:
        """Number of batches per epoch."""
        return len(self._sampler)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of ``epoch`` from number ``first`` on.

        Each is images (B, 3, H, W) float32 in channels_last and labels (B,) int64, and does not depend on
        ``first``.
        """
        random = np.random.default_rng([self._seed, epoch, 1])  # 1: another stream than the sampler's
        padding = self._augmentation.crop_padding
        for number, chosen in enumerate(self._sampler.epoch(epoch)):
            shifts = random.integers(-padding, padding, (2, len(chosen)), endpoint=True)
            flips = random.random(len(chosen)) < self._augmentation.flip_probability
            if number < first:
                continue
            rows = self._shard.rows(len(chosen))
            images, index = self._images, torch.from_numpy(chosen[rows])
            labels = self._labels[index]
            if images.device.type != self._device.type:
                images, index = to_device(images[index], self._device), torch.arange(len(index))
            y, x = torch.from_numpy(shifts[:, rows])
            numbers = torch.stack([index, y, x, torch.from_numpy(flips[rows]), labels])
            index, y, x, flip, labels = to_device(numbers, self._device).unbind()  # one copy for all of them
            yield batch_from_cache(images, index, y, x, flip.bool()), labels

    def names(self, epoch: int, number: int) -> list[str]:
        """Return the paths of the images of batch ``number`` of ``epoch``, over all processes."""
        chosen = next(islice(self._sampler.epoch(epoch), number, None))
        return [self._records[index].path for index in chosen]


class EvalBatches:
    """All images of a cache in order, without augmentation, read from disk batch by batch.

    Args:
        cache: N decoded images.
        batch_size: Images per batch; the last may be smaller.
        device: Device of the batches.
        shard: This process's part of the batches.
    """

    def __init__(
        self, cache: ImageCache, batch_size: int, device: torch.device | str, shard: Shard = WHOLE
    ) -> None:
        self._cache = cache
        self._batch_size = batch_size
        self._device = torch.device(device)
        starts = range(0, len(cache.images), batch_size)
        self._starts = starts[shard.rows(len(starts))]

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._starts)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield (B, 3, H, W) float32 in channels_last."""
        for start in self._starts:
            with catch_warnings():
                simplefilter("ignore", UserWarning)  # torch warns of read-only memory
                images = torch.from_numpy(self._cache.images[start : start + self._batch_size])
            yield normalized(to_device(images, self._device))


def normalized(images: Tensor) -> Tensor:
    """Normalise (N, H, W, 3) uint8 ``images`` to (N, 3, H, W) float32 in channels_last."""
    index = torch.arange(len(images), device=images.device)
    zero = torch.zeros_like(index)
    return batch_from_cache(images, index, zero, zero, zero.bool())
