"""Run the kernels of mixed_op_sum by Triton's interpreter and hold them to the twin: in a process of its own.

Small tiles, so that a few values have several; what `torch.empty` gives is poisoned with NaN.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from autoreid_fast.kernels import mixed_op_sum as kernels
from autoreid_fast.ops.mixed_op_sum import reference as twin

KINDS = [twin.BATCH, twin.PLAIN, twin.GIVEN, twin.FIXED, twin.BATCH]
CASES = [
    (torch.float32, (2, 5, 7, 9)),
    (torch.float32, (3, 9, 2, 3)),
    (torch.float16, (2, 5, 5, 3)),
    (torch.float16, (1, 1, 3, 2)),
]

kernels.REDUCE_ELEMENTS = 64
kernels.MAP_ELEMENTS = 64
kernels.MAX_CHANNELS = 4


def poisoned(*arguments: Any, **options: Any) -> Tensor:
    return allocate(*arguments, **options).fill_(torch.nan)


def inputs(shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format) -> list[Any]:
    candidates = [(2 * torch.randn(shape) + 3).to(dtype).contiguous(memory_format=layout) for _ in KINDS]
    candidates[4] = candidates[4].contiguous()  # in another layout than the first one
    exact = [z.float() for z in candidates]
    means, variances = zip(
        *((z.mean((0, 2, 3)), z.var((0, 2, 3), unbiased=False)) for z in exact), strict=True
    )
    statistics = torch.stack([torch.stack(means), torch.stack(variances)])
    return [candidates, torch.rand(len(KINDS)), statistics, torch.randn(shape).to(dtype)]


def both(module: Any, candidates: Any, weights: Tensor, statistics: Tensor, grad: Tensor) -> list[Tensor]:
    y, used = module.mixed_op_sum(candidates, weights, KINDS, statistics, 1e-5)
    grads, grad_weights = module.mixed_op_sum_backward(
        grad, candidates, weights, KINDS, used, 1e-5, [0, 1, 3, 4]
    )
    none, _ = module.mixed_op_sum_backward(grad, candidates, weights, KINDS, used, 1e-5, [])
    assert none == []
    return [y, used, *grads, grad_weights]


def close(found: Sequence[Tensor], reference: Sequence[Tensor], truth: Sequence[Tensor]) -> None:
    for ours, theirs, exact in zip(found, reference, truth, strict=True):
        error, allowed = (ours.double() - exact).abs().max(), (theirs.double() - exact).abs().max()
        assert error <= 2 * allowed + 2e-6 * exact.abs().max(), (error, allowed)
        assert ours.dtype == theirs.dtype and ours.stride() == theirs.stride()


if __name__ == "__main__":
    torch.manual_seed(0)
    allocate, torch.empty = torch.empty, poisoned
    for dtype, shape in CASES:
        for layout in (torch.contiguous_format, torch.channels_last):
            candidates, weights, statistics, grad = inputs(shape, dtype, layout)
            found = both(kernels, candidates, weights, statistics, grad)
            reference = both(twin, candidates, weights, statistics, grad)
            truth = both(
                twin,
                [z.double() for z in candidates],
                weights.double(),
                statistics.double(),
                grad.double(),
            )
            close(found, reference, truth)
