"""ReLU, depthwise 3x3 and pointwise 1x1 convolution of one source, every filter of it at once: the
(dilated) separable convolutions of Sec. 3.1 up to their batch norm."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops import contract, triton_kernels
from autoreid_fast.ops.mixed_op_sum import MAX_POSITIONS
from autoreid_fast.ops.mixed_op_sum.reference import accumulation_dtype
from autoreid_fast.ops.separable_conv import reference as twin
from autoreid_fast.ops.stencil3x3 import MAX_FILTERS
from autoreid_fast.ops.stencil3x3.reference import out_size


class SeparableConv(NamedTuple):
    """What `separable_conv` returns."""

    z: Tensor
    """(F, N, D, ceil(H / stride), ceil(W / stride)) in the dtype of x. In memory (F, N, Ho, Wo, D): each z[f]
    is contiguous in `torch.channels_last`."""
    statistics: Tensor | None
    """(F, 2, D): mean and biased variance of each z[f] over N, Ho and Wo, in float32 (float64 for float64),
    as `mixed_op_sum` takes them; no gradient flows through them. None where not asked for."""


def separable_conv(
    x: Tensor,
    depthwise: Tensor,
    pointwise: Tensor,
    dilations: Sequence[int],
    stride: int = 1,
    statistics: bool = False,
) -> SeparableConv:
    """F separable convolutions that all read ReLU(x): a depthwise 3x3 filter, then its own 1x1 convolution.

    A depthwise filter has its dilation as padding; there are no biases.

    Args:
        x: (N, C, H, W), none of them 0, in float32, float16, bfloat16 or float64 (on CUDA: by the
            reference twin). Read as it is where it is contiguous in `torch.channels_last`; other strides
            cost a copy. Half types: float32 inside, by a float32 copy on the CPU; on CUDA the depthwise
            output is rounded to them, as an unfused convolution stores it.
        depthwise: (F, C, 3, 3), F from 1 to 64, of x's dtype and device.
        pointwise: (F, D, C), of x's dtype and device.
        dilations: F times 1 or 2.
        stride: 1 or 2, of all filters.
        statistics: whether the batch statistics of z are wanted.

    Returns:
        z and its statistics. Nothing but x and the weights is kept for the backward pass, which computes the
        depthwise outputs again where weights need gradients, and is deterministic for any number of threads;
        the gradient of x has pixels last. It is differentiable once (twice under
        `ops.backend("reference")`).

    Raises:
        AutoReIDError: a wrong shape, dtype, device, dilation or stride.
    """
    _check(x, depthwise, pointwise, dilations, stride)
    arguments = (x, depthwise, pointwise, list(dilations), stride, statistics)
    if contract.reference_forced() or (x.dtype == torch.float64 and x.is_cuda):
        z, moments = twin.separable_conv(*arguments)
    else:
        z, moments = torch.ops.autoreid_fast.separable_conv(*arguments)
    return SeparableConv(z, moments if statistics else None)


def _check(x: Tensor, depthwise: Tensor, pointwise: Tensor, dilations: Sequence[int], stride: int) -> None:
    if x.ndim != 4 or 0 in x.shape:
        raise AutoReIDError(
            f"separable_conv: x has shape {tuple(x.shape)}; expected (N, C, H, W), none of them 0"
        )
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        raise AutoReIDError(f"separable_conv: x is {x.dtype}; expected a floating type")
    if stride not in (1, 2):
        raise AutoReIDError(f"separable_conv: stride is {stride}; it is 1 or 2")
    if x.numel() // x.shape[1] > MAX_POSITIONS:
        raise AutoReIDError(
            f"separable_conv: x of shape {tuple(x.shape)} has more than {MAX_POSITIONS} values a channel: "
            "split the batch"
        )
    channels = x.shape[1]
    if (
        depthwise.ndim != 4
        or depthwise.shape[1:] != (channels, 3, 3)
        or not 1 <= len(depthwise) <= MAX_FILTERS
    ):
        raise AutoReIDError(
            f"separable_conv: depthwise has shape {tuple(depthwise.shape)}; expected (F, {channels}, 3, 3), "
            f"1 <= F <= {MAX_FILTERS}"
        )
    filters = len(depthwise)
    if pointwise.ndim != 3 or pointwise.shape[::2] != (filters, channels) or pointwise.shape[1] == 0:
        raise AutoReIDError(
            f"separable_conv: pointwise has shape {tuple(pointwise.shape)}; expected ({filters}, D, "
            f"{channels}), D >= 1, for {filters} filters in depthwise"
        )
    for name, weights in (("depthwise", depthwise), ("pointwise", pointwise)):
        if weights.dtype != x.dtype or weights.device != x.device:
            raise AutoReIDError(
                f"separable_conv: {name} is {weights.dtype} on {weights.device}, x is {x.dtype} on "
                f"{x.device}: call {name}.to(x)"
            )
    if len(dilations) != filters or not {*dilations} <= {1, 2}:
        raise AutoReIDError(
            f"separable_conv: dilations are {tuple(dilations)}; expected 1 or 2 for each of {filters} filters"
        )


def _fake(
    x: Tensor, depthwise: Tensor, pointwise: Tensor, dilations: list[int], stride: int, statistics: bool
) -> tuple[Tensor, Tensor]:
    batch, _, height, width = x.shape
    filters, channels, _ = pointwise.shape
    z = x.new_empty((filters, batch, out_size(height, stride), out_size(width, stride), channels))
    moments = (filters if statistics else 0, 2, channels)
    return z.movedim(-1, -3), x.new_empty(moments, dtype=accumulation_dtype(x))


def _fake_backward(
    grad: Tensor,
    x: Tensor,
    depthwise: Tensor,
    pointwise: Tensor,
    dilations: list[int],
    stride: int,
    need_x: bool,
    need_weights: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, channels, height, width = x.shape
    filters = depthwise.shape[0] if need_weights else 0
    return (
        x.new_empty((batch if need_x else 0, height, width, channels)).movedim(-1, -3),
        depthwise.new_empty((filters, *depthwise.shape[1:])),
        pointwise.new_empty((filters, *pointwise.shape[1:])),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, depthwise, pointwise, ctx.dilations, ctx.stride, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, depthwise, pointwise)


def _backward(ctx: Any, grad: Tensor | None, *rest: Any) -> tuple[Tensor | None, ...]:
    need_x, need_depthwise, need_pointwise = ctx.needs_input_grad[:3]
    if grad is None:
        return (None,) * 6
    grad_x, grad_depthwise, grad_pointwise = torch.ops.autoreid_fast.separable_conv_backward(
        grad, *ctx.saved_tensors, ctx.dilations, ctx.stride, need_x, need_depthwise or need_pointwise
    )
    return (
        grad_x if need_x else None,
        grad_depthwise if need_depthwise else None,
        grad_pointwise if need_pointwise else None,
        *(None,) * 3,
    )


def _no_second_derivative(ctx: Any, *rest: Any) -> None:
    raise AutoReIDError(
        "separable_conv: the native op is differentiable once; use ops.backend('reference') for more"
    )


contract.define(
    "separable_conv",
    "(Tensor x, Tensor depthwise, Tensor pointwise, int[] dilations, int stride, bool statistics) -> "
    "(Tensor z, Tensor statistics)",
    twin.separable_conv,
    _fake,
)
contract.define(
    "separable_conv_backward",
    "(Tensor grad, Tensor x, Tensor depthwise, Tensor pointwise, int[] dilations, int stride, bool need_x, "
    "bool need_weights) -> (Tensor grad_x, Tensor grad_depthwise, Tensor grad_pointwise)",
    twin.separable_conv_backward,
    _fake_backward,
)
triton_kernels.lay("separable_conv", "separable_conv", "separable_conv_backward")
torch.library.register_autograd("autoreid_fast::separable_conv", _backward, setup_context=_setup_context)
torch.library.register_autograd("autoreid_fast::separable_conv_backward", _no_second_derivative)
