"""Class-balanced sampling (Sec. 3.2): P identities per batch and K images per identity."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from autoreid_fast.errors import AutoReIDError


class IdentitySampler(Sampler[list[int]]):
    """Batches of ``identities_per_batch`` (P) identities with ``images_per_identity`` (K) images each.

    An epoch is max(1, N // (P K)) batches for N images. Identities are drawn in passes: a pass shuffles all
    I identities and cuts them into I // P batches, leaving out the last I mod P of that shuffle. Within a
    pass no identity repeats, and each is equally likely in every batch. The K images of an identity are
    drawn anew each time. They all differ if the identity has K images; otherwise each image is drawn once
    before any is drawn again.

    As ``batch_sampler`` of a `torch.utils.data.DataLoader` it gives epoch 0, then epoch 1, and so on, one
    for each pass over the loader. `set_epoch` chooses the next epoch, after a resume for example.

    Args:
        labels: (N,) integers, the class of every image.
        identities_per_batch: P. Paper: 4 in search (with 4 images: its batch of 16), 8 and 16 in training.
        images_per_identity: K. Paper: 4.
        seed: Seed of all epochs.
        subset: Indices into ``labels`` to draw from (a half of Algorithm 1's split); None means all.

    Raises:
        AutoReIDError: P or K is below 1, or there are fewer than P identities.

    Examples:
        >>> import torch
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> from autoreid_fast.data import IdentitySampler
        >>> labels = torch.arange(20) // 5  # 4 identities with 5 images each
        >>> sampler = IdentitySampler(labels, identities_per_batch=2, images_per_identity=3)
        >>> loader = DataLoader(TensorDataset(torch.rand(20, 3, 8, 4), labels), batch_sampler=sampler)
        >>> len(loader)
        3
        >>> for images, classes in loader:
        ...     counts = torch.bincount(classes, minlength=4).tolist()
        ...     print(tuple(images.shape), sorted(counts))
        (6, 3, 8, 4) [0, 0, 3, 3]
        (6, 3, 8, 4) [0, 0, 3, 3]
        (6, 3, 8, 4) [0, 0, 3, 3]
    """

    def __init__(
        self,
        labels: Tensor | np.ndarray | Sequence[int],
        identities_per_batch: int,
        images_per_identity: int,
        seed: int = 0,
        subset: np.ndarray | None = None,
    ) -> None:
        classes = torch.as_tensor(labels).cpu().numpy()
        subset = np.arange(len(classes)) if subset is None else subset
        for name, value in (
            ("identities_per_batch", identities_per_batch),
            ("images_per_identity", images_per_identity),
        ):
            if value < 1:
                raise AutoReIDError(f"{name} {value}: expected at least 1")
        order = np.argsort(classes[subset], kind="stable")
        starts = np.unique(classes[subset][order], return_index=True)[1]
        self._images = [part.astype(np.int64) for part in np.split(subset[order], starts[1:]) if part.size]
        if len(self._images) < identities_per_batch:
            raise AutoReIDError(
                f"identities_per_batch (batch.identities) {identities_per_batch}: expected at most "
                f"{len(self._images)}, the number of identities to draw from; lower it, or give more "
                "identities to train on"
            )
        self.identities_per_batch = identities_per_batch
        self.images_per_identity = images_per_identity
        self.seed = seed
        self._batches = max(1, len(subset) // (identities_per_batch * images_per_identity))
        self._next_epoch = 0

    def __len__(self) -> int:
        """Number of batches per epoch."""
        return self._batches

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of the next epoch, lists of P*K indices."""
        epoch = self._next_epoch
        self._next_epoch += 1
        return (batch.tolist() for batch in self.epoch(epoch))

    def set_epoch(self, epoch: int) -> None:
        """Make ``epoch`` the epoch of the next iteration."""
        self._next_epoch = epoch

    def epoch(self, epoch: int) -> Iterator[np.ndarray]:
        """Yield the batches of ``epoch``: indices (P*K,) int64, the images of an identity next to each other.

        A pure function of the labels, the seed and ``epoch``.
        """
        random = np.random.default_rng([self.seed, epoch])
        remaining: list[int] = []
        for _ in range(len(self)):
            if len(remaining) < self.identities_per_batch:
                remaining = random.permutation(len(self._images)).tolist()
            chosen = [remaining.pop() for _ in range(self.identities_per_batch)]
            yield np.concatenate([self._draw(self._images[identity], random) for identity in chosen])

    def _draw(self, images: np.ndarray, random: np.random.Generator) -> np.ndarray:
        rounds = math.ceil(self.images_per_identity / len(images))
        shuffled = [random.permutation(images) for _ in range(rounds)]
        return np.concatenate(shuffled)[: self.images_per_identity]
