"""Compare the kernels of separable_conv, interpreted, with the reference; run in a process of its own.

Tiles are small, so that small tensors have several, and `torch.empty` is filled with NaN.
"""

from typing import Any

import torch
from torch import Tensor

from autoreid_fast.kernels import separable_conv as kernels
from autoreid_fast.ops.separable_conv import reference

CASES: list[tuple[torch.dtype, tuple[int, ...], int, list[int], int]] = [
    (torch.float32, (2, 5, 7, 4), 9, [1, 2, 1], 1),
    (torch.float32, (1, 35, 5, 6), 35, [2, 1], 2),
    (torch.float16, (2, 20, 3, 5), 8, [2], 1),
    (torch.float16, (1, 1, 1, 1), 1, [1, 2], 2),
]
"""dtype, (N, C, H, W), D, dilations, stride."""

kernels.BLOCK_PIXELS = 16
kernels.BLOCK_CHANNELS = 16
kernels.MAX_BLOCK_OUT = 16
kernels.GRAD_PROGRAMS = 6
kernels.MERGE_BLOCK_TILES = 2
kernels.MERGE_BLOCK_OUT = 16


def poisoned(*arguments: Any, **options: Any) -> Tensor:
    return allocate(*arguments, **options).fill_(torch.nan)


def forward_and_backward(
    module: Any, grad: Tensor, x: Tensor, depthwise: Tensor, pointwise: Tensor, *options: Any
) -> list[Tensor]:
    z, statistics = module.separable_conv(x, depthwise, pointwise, *options, True)
    plain, none = module.separable_conv(x, depthwise, pointwise, *options, False)
    assert torch.equal(plain, z)
    assert none.shape == (0, 2, len(pointwise[0]))
    grads = module.separable_conv_backward(grad, x, depthwise, pointwise, *options, True, True)
    only_x, *empty = module.separable_conv_backward(grad, x, depthwise, pointwise, *options, True, False)
    assert [len(grad) for grad in empty] == [0, 0]
    return [z, statistics, *grads, only_x]


if __name__ == "__main__":
    torch.manual_seed(0)
    allocate, torch.empty = torch.empty, poisoned
    for dtype, shape, out_channels, dilations, stride in CASES:
        filters, channels = len(dilations), shape[1]
        x = torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last)
        depthwise = torch.randn(filters, channels, 3, 3).to(dtype)
        pointwise = torch.randn(filters, out_channels, channels).to(dtype)
        given = (x, depthwise, pointwise)
        z, _ = reference.separable_conv(*given, dilations, stride, False)
        grad = torch.randn_like(z)
        ours = []
        for max_fused_out in (16, 0):  # dh by the kernel, then by a GEMM
            kernels.MAX_FUSED_OUT = max_fused_out
            ours += forward_and_backward(kernels, grad, *given, dilations, stride)
        theirs = forward_and_backward(reference, grad, *given, dilations, stride)
        doubles = [tensor.double() for tensor in (grad, *given)]
        truth = forward_and_backward(reference, *doubles, dilations, stride)
        for our, their, exact in zip(ours, 2 * theirs, 2 * truth, strict=True):
            error, allowed = (our.double() - exact).abs().max(), (their.double() - exact).abs().max()
            assert error <= 2 * allowed + 2e-6 * exact.abs().max(), (shape, dtype, error, allowed)
            assert our.dtype == their.dtype
            assert our.stride() == their.stride()
    # z = 1000 + noise: as a difference of mean squares, the variance would have no correct digit.
    x = torch.rand(2, 16, 5, 6) + 1000
    centre = torch.zeros(1, 16, 3, 3)
    centre[:, :, 1, 1] = 1
    z, statistics = kernels.separable_conv(x, centre, torch.eye(16)[None], [1], 1, True)
    variance = z[0].double().var((0, 2, 3), correction=0)
    torch.testing.assert_close(statistics[0, 1].double(), variance, rtol=1e-3, atol=0)
