"""Hold the kernels of separable_conv, run by Triton's interpreter, to the twin: in a process of its own.

Small tiles, so that a few values have several; what `torch.empty` gives is poisoned with NaN.
"""

from typing import Any

import torch
from torch import Tensor

import autoreid_fast.ops  # noqa: F401  (stencil3x3 is a part of the backward pass)
from autoreid_fast.kernels import separable_conv as kernels
from autoreid_fast.ops.separable_conv import reference as twin

CASES: list[tuple[torch.dtype, tuple[int, ...], int, list[int], int]] = [
    (torch.float32, (2, 5, 7, 4), 9, [1, 2, 1], 1),
    (torch.float32, (1, 35, 5, 6), 35, [2, 1], 2),
    (torch.float16, (2, 20, 3, 5), 8, [2], 1),
    (torch.float16, (1, 1, 1, 1), 1, [1, 2], 2),
]
"""dtype, (N, C, H, W), D, dilations, stride."""

kernels.TILE = 16
kernels.CHANNELS = 16
kernels.MAX_OUT = 16
kernels.PROGRAMS = 6
kernels.MERGE_ROWS = 2
kernels.MERGE_CHANNELS = 16


def poisoned(*arguments: Any, **options: Any) -> Tensor:
    return allocate(*arguments, **options).fill_(torch.nan)


def both(
    module: Any, grad: Tensor, x: Tensor, depthwise: Tensor, pointwise: Tensor, *options: Any
) -> list[Tensor]:
    z, statistics = module.separable_conv(x, depthwise, pointwise, *options, True)
    plain, none = module.separable_conv(x, depthwise, pointwise, *options, False)
    assert torch.equal(plain, z)
    assert none.shape == (0, 2, len(pointwise[0]))
    grads = module.separable_conv_backward(grad, x, depthwise, pointwise, *options, True, True)
    only_x, *empty = module.separable_conv_backward(grad, x, depthwise, pointwise, *options, True, False)
    assert [len(each) for each in empty] == [0, 0]
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
        z, _ = twin.separable_conv(*given, dilations, stride, False)
        grad = torch.randn_like(z)
        found = []
        for most in (16, 0):  # and dh by a GEMM
            kernels.MAX_FUSED_OUT = most
            found += both(kernels, grad, *given, dilations, stride)
        reference = both(twin, grad, *given, dilations, stride)
        truth = both(twin, grad.double(), *(each.double() for each in given), dilations, stride)
        for ours, theirs, exact in zip(found, 2 * reference, 2 * truth, strict=True):
            error, allowed = (ours.double() - exact).abs().max(), (theirs.double() - exact).abs().max()
            assert error <= 2 * allowed + 2e-6 * exact.abs().max(), (shape, dtype, error, allowed)
            assert ours.dtype == theirs.dtype
            assert ours.stride() == theirs.stride()
    # z = 1000 + noise: a difference of mean squares would keep no digit of its variance.
    x = torch.rand(2, 16, 5, 6) + 1000
    centre = torch.zeros(1, 16, 3, 3)
    centre[:, :, 1, 1] = 1
    z, statistics = kernels.separable_conv(x, centre, torch.eye(16)[None], [1], 1, True)
    variance = z[0].double().var((0, 2, 3), correction=0)
    torch.testing.assert_close(statistics[0, 1].double(), variance, rtol=1e-3, atol=0)
