"""All part-aware modules on one source, as far as the bias vector of each strip, forward and backward."""

from typing import Any

import torch
from torch import Tensor

from autoreid_fast import ops
from autoreid_fast.ops.part_attention import PARTS
from autoreid_fast.ops.part_attention.spec import PART_ATTENTION

from .harness.case import Case, Variant, Work

EPS = 1e-5
WITHOUT_EFFECT = (1, 5)
"""Indices of project_bias and query_bias among the parameters."""


def shapes(variant: Variant) -> list[tuple[int, ...]]:
    """Shapes of the seven parameters, with C // 3 hidden and C output channels."""
    edges, channels = variant.sizes["E"], variant.sizes["C"]
    hidden = channels // 3
    square, vector = (edges, hidden, hidden), (edges, hidden)
    strip = (edges, PARTS, hidden)
    return [(*strip, channels), strip, square, vector, square, vector, (edges, channels, hidden)]


def inputs(variant: Variant) -> tuple[Tensor, ...]:
    """x (N, C, H, W) channels_last, standard normal, and float32 parameters as a layer initialises them.

    The biases of projection and query require no gradient: batch norm cancels the one and the softmax the
    other, so the true gradients are 0 and the computed ones are rounding errors.
    """
    x = torch.randn([variant.sizes[name] for name in "NCHW"]).to(variant.dtype)
    weights = [torch.randn(shape) * shape[-1] ** -0.5 for shape in shapes(variant)]
    for index, weight in enumerate(weights):
        weight.requires_grad_(index not in WITHOUT_EFFECT)
    return (x.to(memory_format=torch.channels_last).requires_grad_(), *weights)


def ours(*tensors: Tensor) -> Tensor:
    """The op."""
    return ops.part_attention(*tensors, eps=EPS)


def reference(*tensors: Tensor) -> Tensor:
    """Its reference."""
    arguments: Any = (*tensors, None, None, False, EPS)
    bias: Tensor = PART_ATTENTION.reference(*arguments)[0]
    return bias


def work(variant: Variant) -> Work:
    """Forward reads x and the parameters; backward reads the parameters, and writes the gradients of both.

    One addition per value of x; one multiply-add (2 FLOPs) forward and two backward for each product of a
    parameter with one of N mean vectors (projection) or N M body vectors.
    """
    n, c, h, w = (variant.sizes[name] for name in "NCHW")
    pixels = n * c * h * w
    numbers = [torch.Size(shape).numel() for shape in shapes(variant)]
    products = n * numbers[0] + n * PARTS * (numbers[2] + numbers[4] + numbers[6])
    moved = 2 * pixels * variant.dtype.itemsize + 3 * sum(numbers) * torch.float32.itemsize
    return Work(bytes=moved, flops=pixels + 6 * products)


def size(n: int, c: int, h: int, w: int) -> dict[str, int]:
    return {"E": 4, "N": n, "C": c, "H": h, "W": w}


CPU = (size(4, 32, 96, 32), size(4, 64, 48, 16), size(4, 128, 24, 8), size(4, 256, 12, 4))
CUDA = (size(16, 32, 96, 32), size(16, 256, 12, 4))

CASE = Case(
    name="part_attention",
    variants=(
        *(Variant(sizes) for sizes in CPU),
        *(Variant(sizes, dtype, "cuda") for dtype in (torch.float32, torch.bfloat16) for sizes in CUDA),
    ),
    inputs=inputs,
    ours=ours,
    reference=reference,
    work=work,
    tolerance=1e-5,
)
