"""Max pool, average pool and depthwise 3x3 filters of one source, in one read of it: the windowed part of
all candidate operations of Sec. 3.1 that read one node of a cell."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops.contract import run
from autoreid_fast.ops.stencil3x3.sizes import MAX_FILTERS, out_size
from autoreid_fast.ops.stencil3x3.spec import ARGUMENTS, STENCIL3X3

__all__ = ["MAX_FILTERS", "Stencil3x3", "out_size", "stencil3x3"]


class Stencil3x3(NamedTuple):
    """Outputs in the dtype of x, with channels last in memory (`torch.channels_last`)."""

    max_pool: Tensor | None
    """(N, C, ceil(H / stride), ceil(W / stride)) maximum of each window; None if not requested."""
    avg_pool: Tensor | None
    """The same shape: mean over the pixels of the window that lie in the image; None if not requested."""
    filtered: Tensor
    """(F, N, C, ceil(H / stride), ceil(W / stride)). In memory (F, N, Ho, Wo, C):
    `filtered.permute(0, 1, 3, 4, 2).reshape(F, -1, C)` is a view, ready for one `torch.bmm` with the
    pointwise weights of all filters."""


def stencil3x3(
    x: Tensor,
    weights: Tensor | None = None,
    dilations: Sequence[int] = (),
    stride: int = 1,
    relu: bool = True,
    max_pool: bool = False,
    avg_pool: bool = False,
) -> Stencil3x3:
    """3x3 max pool and average pool of x, and F depthwise 3x3 filters of ReLU(x), all of one stride.

    The pools have padding 1, a filter has its dilation as padding. Among equal values the maximum is the
    first one in row-major order, as in PyTorch; NaN is larger than any number.

    Args:
        x: (N, C, H, W), no size 0, in float32, float16, bfloat16 or float64 (which on CUDA uses the
            reference). Contiguous `torch.channels_last` tensors are read in place, others are copied.
            Half types are computed in float32 (on the CPU from a float32 copy).
        weights: (F, C, 3, 3), F up to 64, of the dtype and on the device of x; None: no filters.
        dilations: F numbers, each 1 or 2.
        stride: 1 or 2, of all outputs.
        relu: whether the filters read ReLU(x); the pools read x itself.
        max_pool: whether to compute the max pool.
        avg_pool: whether to compute the average pool.

    Returns:
        the outputs. The backward pass keeps only x and weights, computes only the gradients that are
        needed, and is deterministic for any number of threads; the gradient of x is channels_last. It is
        differentiable once (twice under `ops.backend("reference")`).

    Raises:
        AutoReIDError: a wrong shape, dtype, device, dilation or stride, or no output requested.

    Examples:
        >>> import torch
        >>> from autoreid_fast import ops
        >>> x = torch.randn(16, 32, 96, 32).contiguous(memory_format=torch.channels_last)
        >>> filters = torch.randn(2, 32, 3, 3)
        >>> outputs = ops.stencil3x3(x, filters, dilations=(1, 2), stride=2, max_pool=True)
        >>> outputs.max_pool.shape, outputs.filtered.shape
        (torch.Size([16, 32, 48, 16]), torch.Size([2, 16, 32, 48, 16]))
    """
    ARGUMENTS.check(
        x=x,
        weights=weights,
        dilations=dilations,
        stride=stride,
        relu=relu,
        max_pool=max_pool,
        avg_pool=avg_pool,
    )
    if weights is None:
        weights = x.new_empty((0, x.shape[1], 3, 3))
        if len(dilations) > 0:
            raise AutoReIDError(
                f"stencil3x3: `dilations` has {len(dilations)} entries; expected none, as `weights` is None"
            )
    if len(weights) == 0 and not max_pool and not avg_pool:
        raise AutoReIDError(
            "stencil3x3: no output is requested; expected `weights`, `max_pool` or `avg_pool`"
        )
    pooled_max, pooled_avg, filtered = run(
        STENCIL3X3, x, weights, list(dilations), stride, relu, max_pool, avg_pool
    )
    return Stencil3x3(pooled_max if max_pool else None, pooled_avg if avg_pool else None, filtered)
