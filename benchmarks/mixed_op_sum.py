"""Weighted sum of a node's normalised candidates, forward and backward, at nodes of the default search."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from autoreid_fast import ops
from autoreid_fast.ops.mixed_op_sum.kinds import BATCH, PLAIN
from autoreid_fast.ops.mixed_op_sum.spec import MIXED_OP_SUM

from .harness.case import Case, Variant, Work

EPS = 1e-5
PER_EDGE = 6
"""Candidates per edge, without `none`; the last one, the identity, has no batch norm."""


def normalized(count: int) -> list[bool]:
    """Which of the candidates have a batch norm."""
    return [k % PER_EDGE != PER_EDGE - 1 for k in range(count)]


def inputs(variant: Variant) -> tuple[Tensor, ...]:
    """Weights (K,) float32, near 1 / 7 as at the start of a search, and K candidates (N, C, H, W).

    L = 1: channels_last, as in the search; L = 0: contiguous.
    """
    sizes = variant.sizes
    shape = (sizes["N"], sizes["C"], sizes["H"], sizes["W"])
    layout = torch.channels_last if sizes["L"] else torch.contiguous_format
    drawn = [torch.randn(shape).to(variant.dtype) for _ in range(sizes["K"])]
    candidates = [z.contiguous(memory_format=layout).requires_grad_() for z in drawn]
    return (torch.softmax(0.1 * torch.randn(sizes["K"] + 1), 0)[1:].requires_grad_(), *candidates)


def work(variant: Variant) -> Work:
    """Forward reads the candidates twice (for the statistics and for the sum) and writes one tensor.

    Backward reads candidates and gradient twice and writes K gradients. 5 FLOPs per element forward, 9
    backward.
    """
    sizes = variant.sizes
    elements = sizes["N"] * sizes["C"] * sizes["H"] * sizes["W"]
    count = sizes["K"]
    return Work(bytes=(5 * count + 3) * elements * variant.dtype.itemsize, flops=14 * count * elements)


def ours(weights: Tensor, *candidates: Tensor) -> Tensor:
    """The op."""
    return ops.mixed_op_sum(candidates, weights, normalized(len(candidates)), eps=EPS)


def reference(weights: Tensor, *candidates: Tensor) -> Tensor:
    """Its reference."""
    kinds = [BATCH if flag else PLAIN for flag in normalized(len(candidates))]
    total: Tensor = MIXED_OP_SUM.reference(candidates, weights, kinds, None, EPS)[0]
    return total


def batch_norms() -> Callable[..., Tensor]:
    """The sum of DARTS-like supernets: one batch norm of torch per candidate, scaled and added in turn."""

    def peer(weights: Tensor, *candidates: Tensor) -> Tensor:
        total = None
        for weight, z, flag in zip(weights.unbind(), candidates, normalized(len(candidates)), strict=True):
            term = weight * (F.batch_norm(z, None, None, training=True, eps=EPS) if flag else z)
            total = term if total is None else total + term
        assert total is not None
        return total

    return peer


NODES: tuple[dict[str, int], ...] = (
    {"K": 12, "N": 4, "C": 32, "H": 96, "W": 32, "L": 1},
    {"K": 30, "N": 4, "C": 32, "H": 96, "W": 32, "L": 1},
    {"K": 30, "N": 4, "C": 256, "H": 12, "W": 4, "L": 1},
    {"K": 30, "N": 4, "C": 32, "H": 96, "W": 32, "L": 0},
    {"K": 30, "N": 4, "C": 256, "H": 12, "W": 4, "L": 0},
)

CASE = Case(
    name="mixed_op_sum",
    variants=(
        *(Variant(sizes) for sizes in NODES),
        *(
            Variant({**sizes, "N": 16}, dtype, "cuda")
            for dtype in (torch.float32, torch.bfloat16)
            for sizes in NODES
        ),
    ),
    inputs=inputs,
    ours=ours,
    reference=reference,
    work=work,
    tolerance=1e-5,
    peers={"torch batch_norm": batch_norms},
)
