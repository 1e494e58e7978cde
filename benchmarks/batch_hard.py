"""Batch-hard triplet loss, forward and backward, on batches of 4 images per identity."""

from collections.abc import Callable

import torch
from torch import Tensor

from autoreid_fast import ops
from autoreid_fast.ops.batch_hard.spec import BATCH_HARD

from .harness.case import Case, Variant, Work

MARGIN = 0.3
IMAGES = 4
"""Images per identity."""


def inputs(variant: Variant) -> tuple[Tensor, Tensor]:
    """Features (N, D), standard normal, and labels (N,) int64, the same for four in a row."""
    n, d = variant.sizes["N"], variant.sizes["D"]
    features = torch.randn(n, d).to(variant.dtype).requires_grad_()
    return features, torch.arange(n // IMAGES).repeat_interleave(IMAGES)


def work(variant: Variant) -> Work:
    """Forward reads the features once; backward reads them once and writes their gradient.

    Half of the symmetric N x N distances, at one multiply-add (2 FLOPs) per dimension. Backward scales two
    difference vectors per anchor and adds each to two rows (8 FLOPs per dimension and anchor).
    """
    n, d = variant.sizes["N"], variant.sizes["D"]
    return Work(bytes=3 * n * d * variant.dtype.itemsize, flops=n * n * d + 8 * n * d)


def metric_learning() -> Callable[[Tensor, Tensor], Tensor]:
    """pytorch-metric-learning with the same definition: plain Euclidean distance, mean over all anchors."""
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.miners import BatchHardMiner
    from pytorch_metric_learning.reducers import MeanReducer

    distance = LpDistance(normalize_embeddings=False)
    miner = BatchHardMiner(distance=distance)
    loss = TripletMarginLoss(margin=MARGIN, distance=distance, reducer=MeanReducer())

    def peer(features: Tensor, labels: Tensor) -> Tensor:
        return loss(features, labels, miner(features, labels))

    return peer


SIZES: tuple[dict[str, int], ...] = ({"N": 64, "D": 2048}, {"N": 32, "D": 512}, {"N": 256, "D": 2048})

CASE = Case(
    name="batch_hard",
    variants=(
        *(Variant(sizes) for sizes in SIZES),
        *(
            Variant(sizes, dtype, "cuda")
            for dtype in (torch.float32, torch.float16, torch.bfloat16)
            for sizes in SIZES
        ),
    ),
    inputs=inputs,
    ours=lambda features, labels: ops.batch_hard(features, labels, margin=MARGIN).loss,
    reference=lambda features, labels: BATCH_HARD.reference(features, labels, MARGIN, False)[0],
    work=work,
    tolerance=1e-5,
    peers={"pytorch-metric-learning": metric_learning},
)
