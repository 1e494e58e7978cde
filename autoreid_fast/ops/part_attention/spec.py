"""`OpSpec` of `part_attention` and its backward op."""

from typing import Any

import torch
from torch import Tensor

from autoreid_fast.ops.arguments import (
    FLOATING,
    Arguments,
    Flag,
    Limit,
    Number,
    TensorArgument,
    accumulation_dtype,
)
from autoreid_fast.ops.part_attention import reference
from autoreid_fast.ops.part_attention.strips import PARTS
from autoreid_fast.ops.sampling import Draw
from autoreid_fast.ops.spec import Autograd, BadInput, OpSpec

_RUNNING = ("E", PARTS, "h"), FLOATING

ARGUMENTS = Arguments(
    "part_attention",
    (
        TensorArgument("x", ("N", "C", "H", "W"), FLOATING),
        TensorArgument("project_weight", ("E", PARTS, "h", "C"), FLOATING),
        TensorArgument("project_bias", ("E", PARTS, "h"), FLOATING),
        TensorArgument("key_weight", ("E", "h", "h"), FLOATING),
        TensorArgument("key_bias", ("E", "h"), FLOATING),
        TensorArgument("query_weight", ("E", "h", "h"), FLOATING),
        TensorArgument("query_bias", ("E", "h"), FLOATING),
        TensorArgument("fuse_weight", ("E", "D", "h"), FLOATING),
        TensorArgument("running_mean", *_RUNNING, optional=True, updated=True),
        TensorArgument("running_var", *_RUNNING, optional=True, updated=True),
        TensorArgument("affine", (2, "E", PARTS, "h"), FLOATING, optional=True),
        Flag("relu"),
        Flag("training"),
        Number("momentum", 0, 1),
        Number("eps", 0),
        Flag("sync"),
    ),
    limits=(Limit("H", minimum=PARTS, hint="use taller images"),),
    together=(("running_mean", "running_var"),),
)


def _sample(draw: Draw) -> dict[str, Any]:
    images, channels, height, width = draw.size(2, 6), draw.size(1, 40), draw.size(4, 13), draw.size(1, 6)
    edges, hidden, out = draw.size(1, 3), max(1, channels // 3), draw.size(1, 20)
    x = draw.tensor(images, channels, height, width)

    def weight(*shape: int) -> Tensor:
        return draw.tensor(*shape, dtype=accumulation_dtype(x)) * shape[-1] ** -0.5

    strip = (edges, PARTS, hidden)
    running, affine = draw.flag(), draw.flag()
    return {
        "x": x,
        "project_weight": weight(*strip, channels),
        "project_bias": weight(*strip),
        "key_weight": weight(edges, hidden, hidden),
        "key_bias": weight(edges, hidden),
        "query_weight": weight(edges, hidden, hidden),
        "query_bias": weight(edges, hidden),
        "fuse_weight": weight(edges, out, hidden),
        "running_mean": weight(*strip) if running else None,
        "running_var": draw.positive(*strip, dtype=accumulation_dtype(x)) if running else None,
        "affine": weight(2, *strip) if affine else None,
        "relu": draw.flag(),
        "training": draw.flag(),
        "momentum": 0.1,
        "eps": 0.1,
        "sync": False,
    }


def _fake(
    x: Tensor,
    project_weight: Tensor,
    project_bias: Tensor,
    key_weight: Tensor,
    key_bias: Tensor,
    query_weight: Tensor,
    query_bias: Tensor,
    fuse_weight: Tensor,
    affine: Tensor | None,
    statistics: Tensor | None,
    relu: bool,
    eps: float,
) -> tuple[Tensor, ...]:
    edges, parts, hidden, channels = project_weight.shape
    images, new = x.shape[0], project_weight.new_empty
    return (
        x.new_empty((edges, images, parts, fuse_weight.shape[1])),
        new((images, parts, channels)),
        new((edges, images, parts, hidden)),
        new((2, edges, parts, hidden)),
    )


def _fake_backward(
    grad: Tensor,
    x: Tensor,
    parameters: list[Tensor],
    affine: Tensor | None,
    means: Tensor,
    normalized: Tensor,
    norm_statistics: Tensor,
    batch_statistics: bool,
    relu: bool,
    eps: float,
    need_x: bool,
    need_parameters: bool,
) -> tuple[Tensor, list[Tensor]]:
    images, channels, height, width = x.shape
    grad_x = x.new_empty((images if need_x else 0, height, width, channels)).permute(0, 3, 1, 2)
    if not need_parameters:
        return grad_x, []
    tensors = parameters if affine is None else [*parameters, affine]
    return grad_x, [tensor.new_empty(tensor.shape) for tensor in tensors]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, *parameters, affine, statistics, ctx.relu, ctx.eps = inputs
    ctx.batch_statistics = statistics is None
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # no zeros for the other outputs
    ctx.save_for_backward(x, *parameters, affine, *output[1:])


def _backward(ctx: Any, grad: Tensor | None, *rest: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * len(ctx.needs_input_grad)
    x, *parameters, affine, means, normalized, norm_statistics = ctx.saved_tensors
    need_x, need_parameters = ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:9])
    grad_x, grads = torch.ops.autoreid_fast.part_attention_backward(
        grad, x, parameters, affine, means, normalized, norm_statistics,
        ctx.batch_statistics, ctx.relu, ctx.eps, need_x, need_parameters,
    )  # fmt: skip
    grads = [*grads, *[None] * (8 - len(grads))]  # of the parameters and of affine
    return grad_x if need_x else None, *grads, None, None, None


PART_ATTENTION = OpSpec(
    name="part_attention",
    schema="(Tensor x, Tensor project_weight, Tensor project_bias, Tensor key_weight, Tensor key_bias, "
    "Tensor query_weight, Tensor query_bias, Tensor fuse_weight, Tensor? affine, Tensor? statistics, "
    "bool relu, float eps) -> (Tensor bias, Tensor means, Tensor normalized, Tensor used)",
    reference=reference.part_attention,
    fake=_fake,
    autograd=Autograd(
        inputs=(
            "x",
            "project_weight",
            "project_bias",
            "key_weight",
            "key_bias",
            "query_weight",
            "query_bias",
            "fuse_weight",
            "affine",
        ),
        setup_context=_setup_context,
        backward=_backward,
        op=OpSpec(
            name="part_attention_backward",
            schema="(Tensor grad, Tensor x, Tensor[] parameters, Tensor? affine, Tensor means, "
            "Tensor normalized, Tensor used, bool batch, bool relu, float eps, bool need_x, "
            "bool need_parameters) -> (Tensor grad_x, Tensor[] grads)",
            reference=reference.part_attention_backward,
            fake=_fake_backward,
            triton="autoreid_fast.kernels.part_attention",
        ),
    ),
    arguments=ARGUMENTS,
    sample=_sample,
    bad_inputs=(
        BadInput(
            "one image",
            lambda sample: {"x": sample["x"][:1], "training": True},
            "expected at least 2 images",
        ),
        BadInput(
            "one image without running statistics",
            lambda sample: {
                "x": sample["x"][:1],
                "training": False,
                "running_mean": None,
                "running_var": None,
            },
            "expected at least 2 images",
        ),
    ),
    family=(
        "part_attention",
        "strip",
        "attend",
        "project",
        "mean_grads",
        "spread",
        "weight_grads",
        "scale_and_shift",
    ),
    triton="autoreid_fast.kernels.part_attention",
    benchmark="part_attention",
)
