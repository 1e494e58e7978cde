"""Max pool, average pool and depthwise 3x3 filters of one source, from one read of it: what all candidate
operations of Sec. 3.1 with a 3x3 window need of a cell's node."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops import contract
from autoreid_fast.ops.stencil3x3 import reference as twin

MAX_FILTERS = 64


class Stencil3x3(NamedTuple):
    """What `stencil3x3` returns, in the dtype of x, pixels last in memory (`torch.channels_last`)."""

    max_pool: Tensor | None
    """(N, C, ceil(H / stride), ceil(W / stride)) maximum of each window; None where not asked for."""
    avg_pool: Tensor | None
    """As `max_pool`: mean over the pixels of the window that are in the image."""
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

    The pools have padding 1, a filter has its dilation as padding. Equal values: the maximum is the first in
    row-major order, as in PyTorch; NaN is larger than any number.

    Args:
        x: (N, C, H, W), none of them 0, in float32, float16, bfloat16 or float64 (on CUDA: by the reference
            twin). Read as it is where it is contiguous in `torch.channels_last`; other strides cost a copy.
            Half types: float32 inside (on the CPU by a float32 copy).
        weights: (F, C, 3, 3), F up to 64, of x's dtype and device; None: no filters.
        dilations: F times 1 or 2.
        stride: 1 or 2, of all outputs.
        relu: whether the filters read ReLU(x); the pools read x as it is.
        max_pool: whether the max pool is wanted.
        avg_pool: whether the average pool is wanted.

    Returns:
        the outputs. Nothing but x and weights is kept for the backward pass, which computes only the
        gradients that are needed, deterministically for any number of threads; the gradient of x has
        pixels last. It is differentiable once (twice under `ops.backend("reference")`).

    Raises:
        AutoReIDError: a wrong shape, dtype, device, dilation or stride, or no output asked for.
    """
    _check(x, weights, dilations, stride, max_pool or avg_pool)
    if weights is None:
        weights = x.new_empty((0, x.shape[1], 3, 3))
    arguments = (x, weights, list(dilations), stride, relu, max_pool, avg_pool)
    if contract.reference_forced() or (x.dtype == torch.float64 and x.is_cuda):
        largest, mean, filtered = twin.stencil3x3(*arguments)
    else:
        largest, mean, filtered = torch.ops.autoreid_fast.stencil3x3(*arguments)
    return Stencil3x3(largest if max_pool else None, mean if avg_pool else None, filtered)


def _check(x: Tensor, weights: Tensor | None, dilations: Sequence[int], stride: int, pools: bool) -> None:
    if x.ndim != 4 or 0 in x.shape:
        raise AutoReIDError(
            f"stencil3x3: x has shape {tuple(x.shape)}; expected (N, C, H, W), none of them 0"
        )
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        raise AutoReIDError(f"stencil3x3: x is {x.dtype}; expected a floating type")
    if stride not in (1, 2):
        raise AutoReIDError(f"stencil3x3: stride is {stride}; it is 1 or 2")
    filters = 0
    if weights is not None:
        if weights.ndim != 4 or weights.shape[1:] != (x.shape[1], 3, 3) or len(weights) > MAX_FILTERS:
            raise AutoReIDError(
                f"stencil3x3: weights have shape {tuple(weights.shape)}; expected (F, {x.shape[1]}, 3, 3), "
                f"F <= {MAX_FILTERS}"
            )
        if weights.dtype != x.dtype or weights.device != x.device:
            raise AutoReIDError(
                f"stencil3x3: weights are {weights.dtype} on {weights.device}, x is {x.dtype} on {x.device}: "
                "call weights.to(x)"
            )
        filters = len(weights)
    if len(dilations) != filters or not {*dilations} <= {1, 2}:
        raise AutoReIDError(
            f"stencil3x3: dilations are {tuple(dilations)}; expected 1 or 2 for each of {filters} filters in "
            "weights"
        )
    if filters == 0 and not pools:
        raise AutoReIDError("stencil3x3: no output asked for: give weights, max_pool or avg_pool")


def _empty_pixels_last(like: Tensor, *sizes: int) -> Tensor:
    """Empty (..., C, H, W) of these sizes with C last in memory."""
    *lead, channels, height, width = sizes
    return like.new_empty((*lead, height, width, channels)).movedim(-1, -3)


def _fake(
    x: Tensor,
    weights: Tensor,
    dilations: list[int],
    stride: int,
    relu: bool,
    max_pool: bool,
    avg_pool: bool,
) -> tuple[Tensor, ...]:
    batch, channels, height, width = x.shape
    out = (channels, twin.out_size(height, stride), twin.out_size(width, stride))
    return (
        _empty_pixels_last(x, batch if max_pool else 0, *out),
        _empty_pixels_last(x, batch if avg_pool else 0, *out),
        _empty_pixels_last(x, weights.shape[0], batch, *out),
    )


def _fake_backward(
    grad_max: Tensor | None,
    grad_avg: Tensor | None,
    grad_filtered: Tensor | None,
    x: Tensor,
    weights: Tensor,
    dilations: list[int],
    stride: int,
    relu: bool,
    need_x: bool,
    need_weights: bool,
) -> tuple[Tensor, Tensor]:
    batch, *image = x.shape
    filters = weights.shape[0] if need_weights else 0
    return (
        _empty_pixels_last(x, batch if need_x else 0, *image),
        weights.new_empty((filters, *weights.shape[1:])),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weights, *ctx.options = inputs
    ctx.set_materialize_grads(False)  # what nobody uses is not read
    ctx.save_for_backward(x, weights)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    x, weights = ctx.saved_tensors
    dilations, stride, relu, max_pool, avg_pool = ctx.options
    wanted = (max_pool, avg_pool, len(dilations) > 0)
    used = [grad if want else None for grad, want in zip(grads, wanted, strict=True)]
    need_x, need_weights = ctx.needs_input_grad[:2]
    need_weights = need_weights and used[2] is not None
    if (not need_x and not need_weights) or used == [None, None, None]:
        return (None,) * 7
    grad_x, grad_weights = torch.ops.autoreid_fast.stencil3x3_backward(
        *used, x, weights, dilations, stride, relu, need_x, need_weights
    )
    return grad_x if need_x else None, grad_weights if need_weights else None, *(None,) * 5


def _no_second_derivative(ctx: Any, *rest: Any) -> None:
    raise AutoReIDError(
        "stencil3x3: the native op is differentiable once; use ops.backend('reference') for more"
    )


contract.define(
    "stencil3x3",
    "(Tensor x, Tensor weights, int[] dilations, int stride, bool relu, bool max_pool, bool avg_pool) -> "
    "(Tensor max_pool, Tensor avg_pool, Tensor filtered)",
    twin.stencil3x3,
    _fake,
)
contract.define(
    "stencil3x3_backward",
    "(Tensor? grad_max, Tensor? grad_avg, Tensor? grad_filtered, Tensor x, Tensor weights, int[] dilations, "
    "int stride, bool relu, bool need_x, bool need_weights) -> (Tensor grad_x, Tensor grad_weights)",
    twin.stencil3x3_backward,
    _fake_backward,
)
torch.library.register_autograd("autoreid_fast::stencil3x3", _backward, setup_context=_setup_context)
torch.library.register_autograd("autoreid_fast::stencil3x3_backward", _no_second_derivative)
