"""3x3 stencils of one source, forward and backward: both pools and F depthwise filters of ReLU(x)."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from autoreid_fast import ops
from autoreid_fast.ops.stencil3x3 import out_size
from autoreid_fast.ops.stencil3x3.spec import STENCIL3X3

from .harness.case import Case, Variant, Work


def inputs(variant: Variant) -> tuple[Tensor, Tensor, Tensor]:
    """x (N, C, H, W) channels_last and weights (F, C, 3, 3), standard normal.

    Last a tensor (S, 0), whose length is the stride.
    """
    n, c, h, w, filters, stride = (variant.sizes[name] for name in "NCHWFS")
    x = torch.randn(n, c, h, w).to(variant.dtype).to(memory_format=torch.channels_last)
    weights = torch.randn(filters, c, 3, 3).to(variant.dtype)
    return x.requires_grad_(), weights.requires_grad_(filters > 0), torch.empty(stride, 0)


def dilations(weights: Tensor) -> list[int]:
    """1 for the separable and 2 for the dilated convolution of each edge, alternating."""
    return [1 + f % 2 for f in range(len(weights))]


def pixels_last(outputs: Iterable[Tensor | None]) -> tuple[Tensor, ...]:
    """The outputs in their memory layout (..., Ho, Wo, C), which a network's gradients have as well."""
    return tuple(output.movedim(-3, -1) for output in outputs if output is not None)


def ours(x: Tensor, weights: Tensor, stride: Tensor) -> tuple[Tensor, ...]:
    """The op."""
    outputs = ops.stencil3x3(x, weights, dilations(weights), len(stride), max_pool=True, avg_pool=True)
    return pixels_last(outputs)


def reference(x: Tensor, weights: Tensor, stride: Tensor) -> tuple[Tensor, ...]:
    """Its reference."""
    return pixels_last(STENCIL3X3.reference(x, weights, dilations(weights), len(stride), True, True, True))


def layers() -> Callable[..., tuple[Tensor, ...]]:
    """The layers of DARTS-like supernets: pools of torch, and one ReLU and convolution per filter."""

    def peer(x: Tensor, weights: Tensor, stride: Tensor) -> tuple[Tensor, ...]:
        s = len(stride)
        largest, mean = F.max_pool2d(x, 3, s, 1), F.avg_pool2d(x, 3, s, 1, count_include_pad=False)
        outputs = [
            F.conv2d(F.relu(x), weight[:, None], None, s, d, d, x.shape[1])
            for weight, d in zip(weights, dilations(weights), strict=True)
        ]
        filtered = torch.stack(outputs) if outputs else x.new_empty((0, *largest.shape))
        return pixels_last([largest, mean, filtered])

    return peer


def work(variant: Variant) -> Work:
    """Forward reads x and writes F + 2 outputs; backward reads x and their gradients and writes x's.

    One multiply-add (2 FLOPs) per tap and filter forward, two backward; per pool and window eight operations
    forward and nine backward.
    """
    n, c, h, w, filters, stride = (variant.sizes[name] for name in "NCHWFS")
    pixels, outputs = n * c * h * w, n * c * out_size(h, stride) * out_size(w, stride)
    elements = 3 * pixels + 2 * (filters + 2) * outputs
    return Work(bytes=elements * variant.dtype.itemsize, flops=(54 * filters + 34) * outputs)


def size(n: int, c: int, h: int, w: int, filters: int, stride: int) -> dict[str, int]:
    return {"N": n, "C": c, "H": h, "W": w, "F": filters, "S": stride}


CPU = (
    size(4, 32, 96, 32, 4, 1),
    size(4, 64, 48, 16, 8, 1),
    size(4, 256, 12, 4, 4, 1),
    size(4, 64, 96, 32, 4, 2),
    size(4, 32, 96, 32, 0, 1),
)
CUDA = (size(16, 32, 96, 32, 8, 1), size(16, 256, 12, 4, 8, 1), size(16, 64, 96, 32, 8, 2))

CASE = Case(
    name="stencil3x3",
    variants=(
        *(Variant(sizes) for sizes in CPU),
        *(Variant(sizes, dtype, "cuda") for dtype in (torch.float32, torch.bfloat16) for sizes in CUDA),
    ),
    inputs=inputs,
    ours=ours,
    reference=reference,
    work=work,
    tolerance=1e-5,
    peers={"torch's layers": layers},
)
