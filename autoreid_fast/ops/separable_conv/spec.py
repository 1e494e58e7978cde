"""`OpSpec` of `separable_conv` and its backward op."""

from typing import Any

import torch
from torch import Tensor

from autoreid_fast.ops.arguments import (
    FLOATING,
    MAX_POSITIONS,
    Arguments,
    Choice,
    Flag,
    Limit,
    SameAs,
    TensorArgument,
    Values,
    accumulation_dtype,
)
from autoreid_fast.ops.sampling import Draw
from autoreid_fast.ops.separable_conv import reference
from autoreid_fast.ops.spec import Autograd, OpSpec
from autoreid_fast.ops.stencil3x3.sizes import MAX_FILTERS, out_size

ARGUMENTS = Arguments(
    "separable_conv",
    (
        TensorArgument("x", ("N", "C", "H", "W"), FLOATING),
        TensorArgument("depthwise", ("F", "C", 3, 3), SameAs("x")),
        TensorArgument("pointwise", ("F", "D", "C"), SameAs("x")),
        Values("dilations", "F", (1, 2)),
        Choice("stride", (1, 2)),
        Flag("statistics"),
    ),
    limits=(
        Limit("F", maximum=MAX_FILTERS, hint="split the filters"),
        Limit("N*H*W", maximum=MAX_POSITIONS, hint="split the batch"),
    ),
)


def _sample(draw: Draw) -> dict[str, Any]:
    batch, channels, filters = draw.size(1, 3), draw.size(1, 35), draw.size(1, 4)
    return {
        "x": draw.tensor(batch, channels, draw.size(1, 20), draw.size(1, 12)),
        "depthwise": draw.tensor(filters, channels, 3, 3),
        "pointwise": draw.tensor(filters, draw.size(1, 40), channels),
        "dilations": [draw.size(1, 2) for _ in range(filters)],
        "stride": draw.size(1, 2),
        "statistics": draw.flag(),
    }


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


SEPARABLE_CONV = OpSpec(
    name="separable_conv",
    schema="(Tensor x, Tensor depthwise, Tensor pointwise, int[] dilations, int stride, bool statistics) -> "
    "(Tensor z, Tensor statistics)",
    reference=reference.separable_conv,
    fake=_fake,
    autograd=Autograd(
        inputs=("x", "depthwise", "pointwise"),
        setup_context=_setup_context,
        backward=_backward,
        op=OpSpec(
            name="separable_conv_backward",
            schema="(Tensor grad, Tensor x, Tensor depthwise, Tensor pointwise, int[] dilations, int stride, "
            "bool need_x, bool need_weights) -> "
            "(Tensor grad_x, Tensor grad_depthwise, Tensor grad_pointwise)",
            reference=reference.separable_conv_backward,
            fake=_fake_backward,
            triton="autoreid_fast.kernels.separable_conv",
        ),
    ),
    arguments=ARGUMENTS,
    sample=_sample,
    family=("separable", "filter_grads", "merge_statistics"),
    triton="autoreid_fast.kernels.separable_conv",
    benchmark="separable_conv",
)
