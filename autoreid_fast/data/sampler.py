"""The class-balanced sampler of Sec. 3.2: P identities, K images of each, in every batch."""

import math
from collections.abc import Iterator

import numpy as np
from torch import Tensor

from autoreid_fast.errors import AutoReIDError


class IdentitySampler:
    """Batches of ``identities_per_batch`` (P) identities times ``images_per_identity`` (K) images.

    An epoch is max(1, N // (P K)) batches over N images. Identities are drawn in passes: a pass shuffles
    all I identities and cuts them into I // P batches, leaving the last I mod P of that shuffle out, so
    that within a pass no identity comes twice and each is equally likely at every place. The K images of
    an identity are drawn afresh each time, all different where it has K of them; where it has fewer, each
    comes before any comes again.

    Args:
        labels: (N,) int64, the class of every image.
        identities_per_batch: P. Paper: 4 in search (with 4 images: its batch of 16), 8 and 16 in training.
        images_per_identity: K. Paper: 4.
        seed: of the whole sequence of epochs.
        subset: indices into ``labels`` to draw from (a half of Algorithm 1's split); None means all of them.

    Raises:
        AutoReIDError: P or K below 1, or fewer than P identities.
    """

    def __init__(
        self,
        labels: Tensor,
        identities_per_batch: int,
        images_per_identity: int,
        seed: int,
        subset: np.ndarray | None = None,
    ) -> None:
        subset = np.arange(len(labels)) if subset is None else subset
        if identities_per_batch < 1 or images_per_identity < 1:
            raise AutoReIDError(
                f"identities_per_batch {identities_per_batch} and images_per_identity {images_per_identity} "
                "must both be at least 1"
            )
        of_subset = labels.numpy()[subset]
        order = np.argsort(of_subset, kind="stable")
        starts = np.unique(of_subset[order], return_index=True)[1]
        self._images = [part.astype(np.int64) for part in np.split(subset[order], starts[1:]) if part.size]
        if len(self._images) < identities_per_batch:
            raise AutoReIDError(
                f"identities_per_batch is {identities_per_batch}, but there are only {len(self._images)} "
                "identities to draw from; lower it, or give more identities to train on"
            )
        self.identities_per_batch = identities_per_batch
        self.images_per_identity = images_per_identity
        self.seed = seed
        self._batches = max(1, len(subset) // (identities_per_batch * images_per_identity))

    def __len__(self) -> int:
        """Batches an epoch."""
        return self._batches

    def epoch(self, epoch: int) -> Iterator[np.ndarray]:
        """Yield the batches of ``epoch``: index arrays (P*K,) int64, an identity's images side by side.

        A pure function of the labels, the seed and ``epoch``.
        """
        random = np.random.default_rng([self.seed, epoch])
        a_pass: list[int] = []
        for _ in range(len(self)):
            if len(a_pass) < self.identities_per_batch:
                a_pass = random.permutation(len(self._images)).tolist()
            chosen = [a_pass.pop() for _ in range(self.identities_per_batch)]
            yield np.concatenate([self._draw(self._images[identity], random) for identity in chosen])

    def _draw(self, images: np.ndarray, random: np.random.Generator) -> np.ndarray:
        rounds = math.ceil(self.images_per_identity / len(images))
        shuffled = [random.permutation(images) for _ in range(rounds)]
        return np.concatenate(shuffled)[: self.images_per_identity]
