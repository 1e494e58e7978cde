"""Training batches from the uint8 image cache: gather, flip, crop and normalise."""

import torch
from torch import Tensor

from autoreid_fast import ops
from autoreid_fast.ops.batch_from_cache.spec import BATCH_FROM_CACHE

from .harness.case import Case, Variant, Work

IMAGES = 256
BORDER = 10


def inputs(variant: Variant) -> tuple[Tensor, ...]:
    """A cache of 256 images, and index, shift and flip of a batch of B."""
    batch, height, width = (variant.sizes[name] for name in "BHW")
    return (
        torch.randint(0, 256, (IMAGES, height, width, 3), dtype=torch.uint8),
        torch.randint(0, IMAGES, (batch,)),
        *torch.randint(-BORDER, BORDER + 1, (2, batch)),
        torch.rand(batch) < 0.5,
    )


def work(variant: Variant) -> Work:
    """Each byte of the batch's images is read once and written once as a float; 3 FLOPs per value."""
    batch, height, width = (variant.sizes[name] for name in "BHW")
    values = batch * height * width * 3
    return Work(bytes=values * (1 + variant.dtype.itemsize), flops=3 * values)


SIZES: tuple[dict[str, int], ...] = ({"B": 16, "H": 384, "W": 128}, {"B": 64, "H": 384, "W": 128})

CASE = Case(
    name="batch_from_cache",
    variants=tuple(Variant(sizes, device=device) for device in ("cpu", "cuda") for sizes in SIZES),
    inputs=inputs,
    ours=ops.batch_from_cache,
    reference=BATCH_FROM_CACHE.reference,
    work=work,
    tolerance=0.0,
)
