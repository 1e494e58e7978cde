"""Compare the kernels of mixed_op_sum, interpreted, with the reference; run in a process of its own.

Tiles are small, so that small tensors have several, and `torch.empty` is filled with NaN.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from autoreid_fast.kernels import mixed_op_sum as kernels
from autoreid_fast.ops.mixed_op_sum import reference
from autoreid_fast.ops.mixed_op_sum.kinds import BATCH, FIXED, GIVEN, PLAIN

KINDS = [BATCH, PLAIN, GIVEN, FIXED, BATCH]
CASES = [
    (torch.float32, (2, 5, 7, 9)),
    (torch.float32, (3, 9, 2, 3)),
    (torch.float16, (2, 5, 5, 3)),
    (torch.float16, (1, 1, 3, 2)),
]

kernels.REDUCE_ELEMENTS = 64
kernels.MAP_ELEMENTS = 64
kernels.MAX_BLOCK_CHANNELS = 4


def poisoned(*arguments: Any, **options: Any) -> Tensor:
    return allocate(*arguments, **options).fill_(torch.nan)


def inputs(shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format) -> list[Any]:
    candidates = [(2 * torch.randn(shape) + 3).to(dtype).contiguous(memory_format=layout) for _ in KINDS]
    candidates[4] = candidates[4].contiguous()  # its layout differs from the first one's
    exact = [z.float() for z in candidates]
    means, variances = zip(
        *((z.mean((0, 2, 3)), z.var((0, 2, 3), unbiased=False)) for z in exact), strict=True
    )
    statistics = torch.stack([torch.stack(means), torch.stack(variances)])
    return [candidates, torch.rand(len(KINDS)), statistics, torch.randn(shape).to(dtype)]


def forward_and_backward(
    module: Any, candidates: Any, weights: Tensor, statistics: Tensor, grad: Tensor
) -> list[Tensor]:
    y, used = module.mixed_op_sum(candidates, weights, KINDS, statistics, 1e-5)
    grads, grad_weights = module.mixed_op_sum_backward(
        grad, candidates, weights, KINDS, used, 1e-5, [0, 1, 3, 4]
    )
    none, _ = module.mixed_op_sum_backward(grad, candidates, weights, KINDS, used, 1e-5, [])
    assert none == []
    return [y, used, *grads, grad_weights]


def assert_close(ours: Sequence[Tensor], theirs: Sequence[Tensor], truth: Sequence[Tensor]) -> None:
    for our, their, exact in zip(ours, theirs, truth, strict=True):
        error, allowed = (our.double() - exact).abs().max(), (their.double() - exact).abs().max()
        assert error <= 2 * allowed + 2e-6 * exact.abs().max(), (error, allowed)
        assert our.dtype == their.dtype and our.stride() == their.stride()


if __name__ == "__main__":
    torch.manual_seed(0)
    allocate, torch.empty = torch.empty, poisoned
    for dtype, shape in CASES:
        for layout in (torch.contiguous_format, torch.channels_last):
            candidates, weights, statistics, grad = inputs(shape, dtype, layout)
            ours = forward_and_backward(kernels, candidates, weights, statistics, grad)
            theirs = forward_and_backward(reference, candidates, weights, statistics, grad)
            truth = forward_and_backward(
                reference,
                [z.double() for z in candidates],
                weights.double(),
                statistics.double(),
                grad.double(),
            )
            assert_close(ours, theirs, truth)
