"""Compare the kernels of part_attention, interpreted, with the reference; run in a process of its own.

Tiles are small, so that small tensors have several, and `torch.empty` is filled with NaN.
"""

from typing import Any

import torch
from torch import Tensor

from autoreid_fast.kernels import part_attention as kernels
from autoreid_fast.ops.part_attention import PARTS, reference

EPS = 1e-5
CASES = [  # x, E, h, D, affine, given statistics, relu
    (torch.float32, (5, 20, 7, 3), 2, 18, 21, False, False, False),
    (torch.float32, (18, 5, 4, 2), 1, 1, 5, True, False, True),
    (torch.float16, (2, 17, 11, 1), 2, 5, 3, True, True, False),
    (torch.float32, (1, 3, 5, 9), 1, 17, 2, False, True, True),
]

kernels.BLOCK_COLUMNS = 16
kernels.BLOCK_PIXELS = 4


def poisoned(*arguments: Any, **options: Any) -> Tensor:
    return allocate(*arguments, **options).fill_(torch.nan)


def inputs(
    dtype: torch.dtype, shape: tuple[int, ...], edges: int, hidden: int, out: int, affine: bool, given: bool
) -> list[Any]:
    """x, the seven parameters, affine, statistics, and the gradient of the bias; exact in every dtype."""

    def numbers(*sizes: int) -> Tensor:
        return (torch.randn(sizes) * sizes[-1] ** -0.5).half().float()

    strips = (edges, PARTS, hidden)
    parameters = [
        numbers(*strips, shape[1]), numbers(*strips), numbers(edges, hidden, hidden), numbers(edges, hidden),
        numbers(edges, hidden, hidden), numbers(edges, hidden), numbers(edges, out, hidden),
    ]  # fmt: skip
    statistics = torch.stack([numbers(*strips), torch.rand(strips) + 0.5])
    grad = numbers(edges, shape[0], PARTS, out).to(dtype)
    x = numbers(*shape).to(dtype).contiguous(memory_format=torch.channels_last)
    return [x, parameters, numbers(2, *strips) if affine else None, statistics if given else None, grad]


def forward_and_backward(
    module: Any,
    x: Tensor,
    parameters: list[Tensor],
    affine: Tensor | None,
    statistics: Tensor | None,
    grad: Tensor,
    relu: bool,
) -> list[Tensor]:
    bias, *kept = module.part_attention(x, *parameters, affine, statistics, relu, EPS)
    common = (grad, x, parameters, affine, *kept, statistics is None, relu, EPS)
    grad_x, grads = module.part_attention_backward(*common, True, True)
    only_x, none = module.part_attention_backward(*common, True, False)
    nothing, only_grads = module.part_attention_backward(*common, False, True)
    assert none == []
    assert nothing.shape == (0, *x.shape[1:])
    assert torch.equal(only_x, grad_x)
    assert all(torch.equal(one, other) for one, other in zip(only_grads, grads, strict=True))
    return [bias, *kept, grad_x, *grads]


def doubled(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.double()


if __name__ == "__main__":
    torch.manual_seed(0)
    allocate, torch.empty = torch.empty, poisoned
    for *case, relu in CASES:
        x, parameters, affine, statistics, grad = inputs(*case)
        ours = forward_and_backward(kernels, x, parameters, affine, statistics, grad, relu)
        theirs = forward_and_backward(reference, x, parameters, affine, statistics, grad, relu)
        wide = [parameter.double() for parameter in parameters]
        truth = forward_and_backward(
            reference, x.double(), wide, doubled(affine), doubled(statistics), grad.double(), relu
        )
        largest = max(exact.abs().max() for exact in truth)
        for our, their, exact in zip(ours, theirs, truth, strict=True):
            error, allowed = (our.double() - exact).abs().max(), (their.double() - exact).abs().max()
            # Gradients of some biases are rounding errors only: hence the largest value of all tensors.
            floor = 2e-6 * exact.abs().max() + 1e-6 * largest
            assert error <= 2 * allowed + floor, (case, error, allowed)
            assert our.dtype == their.dtype
            assert our.stride() == their.stride()
