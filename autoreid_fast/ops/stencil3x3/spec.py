"""`OpSpec` of `stencil3x3` and its backward op."""

from typing import Any

import torch
from torch import Tensor

from autoreid_fast.ops.arguments import (
    FLOATING,
    Arguments,
    Choice,
    Flag,
    Limit,
    SameAs,
    TensorArgument,
    Values,
)
from autoreid_fast.ops.sampling import Draw
from autoreid_fast.ops.spec import Autograd, BadInput, OpSpec
from autoreid_fast.ops.stencil3x3 import reference
from autoreid_fast.ops.stencil3x3.sizes import MAX_FILTERS, out_size

ARGUMENTS = Arguments(
    "stencil3x3",
    (
        TensorArgument("x", ("N", "C", "H", "W"), FLOATING),
        TensorArgument("weights", ("F", "C", 3, 3), SameAs("x"), optional=True),
        Values("dilations", "F", (1, 2)),
        Choice("stride", (1, 2)),
        Flag("relu"),
        Flag("max_pool"),
        Flag("avg_pool"),
    ),
    limits=(Limit("F", maximum=MAX_FILTERS, hint="split the filters"),),
    may_be_zero=("F",),
)


def _sample(draw: Draw) -> dict[str, Any]:
    batch, channels, filters = draw.size(1, 3), draw.size(1, 35), draw.size(0, 4)
    return {
        "x": draw.tensor(batch, channels, draw.size(1, 20), draw.size(1, 12)),
        "weights": draw.tensor(filters, channels, 3, 3) if filters else None,
        "dilations": [draw.size(1, 2) for _ in range(filters)],
        "stride": draw.size(1, 2),
        "relu": draw.flag(),
        "max_pool": filters == 0 or draw.flag(),
        "avg_pool": draw.flag(),
    }


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
    out = (channels, out_size(height, stride), out_size(width, stride))
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
    ctx.set_materialize_grads(False)  # gradients of unused outputs stay None, and are not read
    ctx.save_for_backward(x, weights)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    x, weights = ctx.saved_tensors
    dilations, stride, relu, max_pool, avg_pool = ctx.options
    present = (max_pool, avg_pool, len(dilations) > 0)
    used = [grad if here else None for grad, here in zip(grads, present, strict=True)]
    need_x, need_weights = ctx.needs_input_grad[:2]
    need_weights = need_weights and used[2] is not None
    if (not need_x and not need_weights) or used == [None, None, None]:
        return (None,) * 7
    grad_x, grad_weights = torch.ops.autoreid_fast.stencil3x3_backward(
        *used, x, weights, dilations, stride, relu, need_x, need_weights
    )
    return grad_x if need_x else None, grad_weights if need_weights else None, *(None,) * 5


STENCIL3X3 = OpSpec(
    name="stencil3x3",
    schema="(Tensor x, Tensor weights, int[] dilations, int stride, bool relu, bool max_pool, "
    "bool avg_pool) -> (Tensor max_pool, Tensor avg_pool, Tensor filtered)",
    reference=reference.stencil3x3,
    fake=_fake,
    autograd=Autograd(
        inputs=("x", "weights"),
        setup_context=_setup_context,
        backward=_backward,
        op=OpSpec(
            name="stencil3x3_backward",
            schema="(Tensor? grad_max, Tensor? grad_avg, Tensor? grad_filtered, Tensor x, Tensor weights, "
            "int[] dilations, int stride, bool relu, bool need_x, bool need_weights) -> "
            "(Tensor grad_x, Tensor grad_weights)",
            reference=reference.stencil3x3_backward,
            fake=_fake_backward,
        ),
    ),
    arguments=ARGUMENTS,
    sample=_sample,
    bad_inputs=(
        BadInput(
            "no output",
            lambda sample: {"weights": None, "dilations": [], "max_pool": False, "avg_pool": False},
            "no output",
        ),
        BadInput(
            "dilations without weights",
            lambda sample: {"weights": None, "dilations": [1], "max_pool": True},
            "`dilations` has 1 entries; expected none",
        ),
    ),
    family=("stencil3x3",),
    benchmark="stencil3x3",
)
