"""Batches on the device, made from the uint8 cache: augmented for training, in order for evaluation."""

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
    """What a training image goes through. Paper: random horizontal flipping and cropping, no numbers."""

    flip_probability: float = Field(
        0.5, ge=0, le=1, description="Chance of a horizontal flip; 0.5 in the field."
    )
    crop_padding: int = Field(
        10,
        ge=0,
        description="Black pixels added on each side before a random crop back to the size; 10 in the field.",
    )


def relabel(records: Sequence[ImageRecord]) -> Tensor:
    """Map the pids of ``records`` to classes 0..I-1 in the order of the pids: labels (N,) int64."""
    pids = torch.tensor([record.pid for record in records], dtype=torch.int64)
    return torch.unique(pids, return_inverse=True)[1]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``; to a CUDA device by page-locked memory, so that the host does not wait."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class TrainBatches:
    """Augmented batches of a sampler's choice, the same for the same (seed, epoch).

    The whole cache is placed on ``device`` once, as uint8, and shared with other batches of that cache; where
    it does not fit (`ImageCache.on`), the images of a batch go there when they are due.

    Args:
        cache: N decoded images.
        labels: (N,) int64.
        sampler: gives the indices of each batch.
        augmentation: flip and crop.
        device: where the batches are made.
        seed: of the flips and crops; the sampler has its own.
        share: this process's part of every batch: of the identities, each with all of its images. What is
            random is drawn for the whole batch, so that the parts make up the batch of one process.
    """

    def __init__(
        self,
        cache: ImageCache,
        labels: Tensor,
        sampler: IdentitySampler,
        augmentation: AugmentationConfig,
        device: torch.device | str,
        seed: int,
        share: Shard = WHOLE,
    ) -> None:
        self._device = torch.device(device)
        self._images = cache.on(device)
        self._records = cache.records
        self._labels = labels.cpu()
        self._sampler = sampler
        self._augmentation = augmentation
        self._seed = seed
        self._share = share

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._sampler)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the (images (B, 3, H, W) float32 in channels_last, labels (B,) int64) of ``epoch``.

        From its batch ``first`` on, which is the same whether the ones before it were made or not.
        """
        random = np.random.default_rng([self._seed, epoch, 1])  # the 1 sets it apart from the sampler's
        padding = self._augmentation.crop_padding
        for number, chosen in enumerate(self._sampler.epoch(epoch)):
            shifts = random.integers(-padding, padding, (2, len(chosen)), endpoint=True)
            flips = random.random(len(chosen)) < self._augmentation.flip_probability
            if number < first:
                continue
            own = self._share.rows(len(chosen))
            images, index = self._images, torch.from_numpy(chosen[own])
            labels = self._labels[index]
            if images.device.type != self._device.type:
                images, index = to_device(images[index], self._device), torch.arange(len(index))
            drawn = (*torch.from_numpy(shifts[:, own]), torch.from_numpy(flips[own]))
            numbers = torch.stack([index, *drawn, labels])
            index, y, x, flip, labels = to_device(numbers, self._device).unbind()  # all in one copy
            yield batch_from_cache(images, index, y, x, flip.bool()), labels

    def names(self, epoch: int, number: int) -> list[str]:
        """The paths of the images of batch ``number`` of ``epoch``: of all processes' shares."""
        chosen = next(islice(self._sampler.epoch(epoch), number, None))
        return [self._records[index].path for index in chosen]


class EvalBatches:
    """All images of a cache in its order, as they are, read from disk batch by batch.

    Args:
        cache: N decoded images.
        batch_size: images a batch; the last may be smaller.
        device: where the batches are made.
        share: this process's part of the batches.
    """

    def __init__(
        self, cache: ImageCache, batch_size: int, device: torch.device | str, share: Shard = WHOLE
    ) -> None:
        self._cache = cache
        self._batch_size = batch_size
        self._device = torch.device(device)
        starts = range(0, len(cache.images), batch_size)
        self._starts = starts[share.rows(len(starts))]

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._starts)

    def __iter__(self) -> Iterator[Tensor]:
        """Yield (B, 3, H, W) float32 in channels_last."""
        for start in self._starts:
            with catch_warnings():
                simplefilter("ignore", UserWarning)  # torch warns that the map is read-only: so it is meant
                images = torch.from_numpy(self._cache.images[start : start + self._batch_size])
            yield normalized(to_device(images, self._device))


def normalized(images: Tensor) -> Tensor:
    """All of (N, H, W, 3) uint8 ``images`` as they are: (N, 3, H, W) float32 in channels_last, normalised."""
    index = torch.arange(len(images), device=images.device)
    still = torch.zeros_like(index)
    return batch_from_cache(images, index, still, still, still.bool())
