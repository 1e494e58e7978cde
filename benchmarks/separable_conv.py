"""F separable convolutions of one source with their batch statistics, forward and backward."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from autoreid_fast import ops
from autoreid_fast.ops.separable_conv.spec import SEPARABLE_CONV
from autoreid_fast.ops.stencil3x3 import out_size

from .harness.case import Case, Variant, Work
from .stencil3x3 import dilations, pixels_last, size


def inputs(variant: Variant) -> tuple[Tensor, ...]:
    """x (N, C, H, W) channels_last, depthwise (F, C, 3, 3) and pointwise weights (F, C, C), normal.

    Last a tensor (S, 0), whose length is the stride.
    """
    n, c, h, w, filters, stride = (variant.sizes[name] for name in "NCHWFS")
    x = torch.randn(n, c, h, w).to(variant.dtype).to(memory_format=torch.channels_last)
    depthwise = (torch.randn(filters, c, 3, 3) / 3).to(variant.dtype)
    pointwise = (torch.randn(filters, c, c) / c**0.5).to(variant.dtype)
    return (
        x.requires_grad_(),
        depthwise.requires_grad_(),
        pointwise.requires_grad_(),
        torch.empty(stride, 0),
    )


def outputs(z: Tensor, statistics: Tensor) -> tuple[Tensor, Tensor]:
    """z in its memory layout (F, N, Ho, Wo, D), which a network's gradients have as well."""
    return pixels_last([z])[0], statistics


def ours(x: Tensor, depthwise: Tensor, pointwise: Tensor, stride: Tensor) -> tuple[Tensor, Tensor]:
    z, statistics = ops.separable_conv(x, depthwise, pointwise, dilations(depthwise), len(stride), True)
    assert statistics is not None
    return outputs(z, statistics)


def reference(x: Tensor, depthwise: Tensor, pointwise: Tensor, stride: Tensor) -> tuple[Tensor, Tensor]:
    return outputs(
        *SEPARABLE_CONV.reference(x, depthwise, pointwise, dilations(depthwise), len(stride), True)
    )


def moments(z: Tensor) -> Tensor:
    """Means and biased variances (F, 2, D) of (F, M, D), by torch."""
    variance, mean = torch.var_mean(z.detach(), 1, correction=0)
    return torch.stack([mean, variance], 1)


def stencil_and_bmm() -> Callable[..., tuple[Tensor, Tensor]]:
    """All depthwise filters by `ops.stencil3x3`, all pointwise ones by one `torch.bmm`."""

    def peer(x: Tensor, depthwise: Tensor, pointwise: Tensor, stride: Tensor) -> tuple[Tensor, Tensor]:
        filtered = ops.stencil3x3(x, depthwise, dilations(depthwise), len(stride)).filtered
        images = filtered.permute(0, 1, 3, 4, 2)
        z = torch.bmm(images.flatten(1, 3), pointwise.transpose(1, 2))
        return z.view(*images.shape[:-1], -1), moments(z)

    return peer


def layers() -> Callable[..., tuple[Tensor, Tensor]]:
    """The layers of DARTS-like supernets: one ReLU and two convolutions of torch per filter."""

    def peer(x: Tensor, depthwise: Tensor, pointwise: Tensor, stride: Tensor) -> tuple[Tensor, Tensor]:
        channels = x.shape[1]
        outputs_of_filters = []
        for first, second, d in zip(depthwise, pointwise, dilations(depthwise), strict=True):
            y = F.conv2d(F.relu(x), first[:, None], None, len(stride), d, d, channels)
            outputs_of_filters.append(F.conv2d(y, second[:, :, None, None]).permute(0, 2, 3, 1))
        z = torch.stack(outputs_of_filters)
        return z, moments(z.flatten(1, 3))

    return peer


def work(variant: Variant) -> Work:
    """Forward reads x and writes z; backward reads x and dz and writes dx.

    Multiply-adds (2 FLOPs) per pixel and filter: C D + 9 C forward, 2 C D + 18 C backward, without the
    recomputed depthwise outputs.
    """
    n, c, h, w, filters, stride = (variant.sizes[name] for name in "NCHWFS")
    pixels = n * out_size(h, stride) * out_size(w, stride)
    elements = 3 * n * c * h * w + 2 * filters * pixels * c
    return Work(bytes=elements * variant.dtype.itemsize, flops=filters * pixels * c * (6 * c + 54))


CPU = (
    size(4, 32, 96, 32, 4, 1),
    size(4, 32, 96, 32, 1, 1),
    size(4, 64, 48, 16, 10, 1),
    size(4, 128, 24, 8, 10, 1),
    size(4, 256, 12, 4, 10, 1),
    size(4, 64, 96, 32, 4, 2),
)
CUDA = (size(16, 32, 96, 32, 8, 1), size(16, 256, 12, 4, 8, 1), size(16, 64, 96, 32, 8, 2))

CASE = Case(
    name="separable_conv",
    variants=(
        *(Variant(sizes) for sizes in CPU),
        *(Variant(sizes, dtype, "cuda") for dtype in (torch.float32, torch.bfloat16) for sizes in CUDA),
    ),
    inputs=inputs,
    ours=ours,
    reference=reference,
    work=work,
    tolerance=1e-5,
    peers={"stencil + bmm": stencil_and_bmm, "torch's layers": layers},
)
