"""`OpSpec` of `batch_hard` and its backward op."""

from typing import Any

import torch
from torch import Tensor

from autoreid_fast.ops.arguments import (
    FLOATING,
    Arguments,
    Choice,
    Limit,
    Number,
    TensorArgument,
    accumulation_dtype,
)
from autoreid_fast.ops.batch_hard import reference
from autoreid_fast.ops.sampling import Draw
from autoreid_fast.ops.spec import Autograd, OpSpec

MAX_ANCHORS = 4096

ARGUMENTS = Arguments(
    "batch_hard",
    (
        TensorArgument("features", ("N", "D"), FLOATING),
        TensorArgument("labels", ("N",), (torch.int64,)),
        Number("margin"),
        Choice("form", ("hinge", "printed")),
    ),
    limits=(Limit("N", maximum=MAX_ANCHORS, hint="split the batch"),),
)


def _sample(draw: Draw) -> dict[str, Any]:
    count = draw.size(1, 40)
    return {
        "features": draw.tensor(count, draw.size(1, 150)),
        "labels": draw.integers(0, max(1, count // 3), count),
        "margin": draw.choice((0.3, 1.5)),
        "form": draw.choice(("hinge", "printed")),
    }


def _fake(features: Tensor, labels: Tensor, margin: float, printed: bool) -> tuple[Tensor, ...]:
    count = features.shape[0]
    dtype = accumulation_dtype(features)
    return (
        features.new_empty((), dtype=dtype),
        labels.new_empty((count,)),
        labels.new_empty((count,)),
        features.new_empty((count,), dtype=dtype),
        features.new_empty((count,), dtype=dtype),
    )


def _fake_backward(grad_loss: Tensor, features: Tensor, *saved: Any) -> Tensor:
    return features.new_empty(features.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    features, _, ctx.margin, ctx.printed = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # no zeros for the other four
    ctx.save_for_backward(features, *output[1:])


def _backward(ctx: Any, grad_loss: Tensor | None, *others: Any) -> tuple[Tensor | None, None, None, None]:
    if grad_loss is None:
        return None, None, None, None
    grad = torch.ops.autoreid_fast.batch_hard_backward(grad_loss, *ctx.saved_tensors, ctx.margin, ctx.printed)
    return grad, None, None, None


BATCH_HARD = OpSpec(
    name="batch_hard",
    schema="(Tensor features, Tensor labels, float margin, bool printed) -> "
    "(Tensor loss, Tensor positive, Tensor negative, Tensor positive_distance, Tensor negative_distance)",
    reference=reference.batch_hard,
    fake=_fake,
    autograd=Autograd(
        inputs=("features",),
        setup_context=_setup_context,
        backward=_backward,
        op=OpSpec(
            name="batch_hard_backward",
            schema="(Tensor grad_loss, Tensor features, Tensor positive, Tensor negative, "
            "Tensor positive_distance, Tensor negative_distance, float margin, bool printed) -> Tensor",
            reference=reference.batch_hard_backward,
            fake=_fake_backward,
        ),
    ),
    arguments=ARGUMENTS,
    sample=_sample,
    family=("batch_hard",),
    benchmark="batch_hard",
)
