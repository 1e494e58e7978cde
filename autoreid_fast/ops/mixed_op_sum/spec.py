"""`OpSpec` of `mixed_op_sum` and its backward op."""

from typing import Any

import torch
from torch import Tensor

from autoreid_fast.ops.arguments import (
    FLOATING,
    MAX_POSITIONS,
    AccumulationOf,
    Arguments,
    Flag,
    Limit,
    Number,
    TensorArgument,
    TensorListArgument,
    Values,
    accumulation_dtype,
)
from autoreid_fast.ops.mixed_op_sum import reference
from autoreid_fast.ops.sampling import Draw
from autoreid_fast.ops.spec import Autograd, BadInput, OpSpec

MAX_CANDIDATES = 64

_RUNNING = ("K", "C"), FLOATING

ARGUMENTS = Arguments(
    "mixed_op_sum",
    (
        TensorListArgument("candidates", "K", ("N", "C", "H", "W"), FLOATING),
        TensorArgument("weights", ("K",), FLOATING),
        Values("normalized", "K", (True, False)),
        TensorArgument("running_mean", *_RUNNING, optional=True, updated=True),
        TensorArgument("running_var", *_RUNNING, optional=True, updated=True),
        TensorListArgument(
            "statistics", "K", (2, "C"), AccumulationOf("candidates"), optional=True, optional_entries=True
        ),
        Flag("training"),
        Number("momentum", 0, 1),
        Number("eps", 0),
        Flag("sync"),
    ),
    limits=(
        Limit("K", maximum=MAX_CANDIDATES, hint="split the sum"),
        Limit("N*H*W", maximum=MAX_POSITIONS, hint="split the batch"),
    ),
    together=(("running_mean", "running_var"),),
)


def _sample(draw: Draw) -> dict[str, Any]:
    count, shape = draw.size(1, 7), (draw.size(2, 4), draw.size(1, 35), draw.size(1, 12), draw.size(1, 12))
    candidates = [draw.tensor(*shape) for _ in range(count)]
    wide = [z.to(accumulation_dtype(z)) for z in candidates]
    batch = [torch.stack([z.mean((0, 2, 3)), z.var((0, 2, 3), unbiased=False)]) for z in wide]
    training, running = draw.flag(), draw.flag()
    return {
        "candidates": candidates,
        "weights": draw.positive(count),
        "normalized": [draw.size(0, 3) > 0 for _ in range(count)],
        "running_mean": draw.tensor(count, shape[1], dtype=wide[0].dtype) if running else None,
        "running_var": draw.positive(count, shape[1], dtype=wide[0].dtype) if running else None,
        "training": training,
        "momentum": 0.1,
        "eps": 0.1,
        "sync": False,
        "statistics": [one if draw.flag() else None for one in batch] if draw.flag() else None,
    }


def _fake(
    candidates: list[Tensor], weights: Tensor, kinds: list[int], statistics: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    first = candidates[0]
    return (
        first.new_empty(first.shape).contiguous(memory_format=reference.memory_format(first)),
        weights.new_empty((2, len(candidates), first.shape[1])),
    )


def _fake_backward(
    grad: Tensor,
    candidates: list[Tensor],
    weights: Tensor,
    kinds: list[int],
    statistics: Tensor,
    eps: float,
    wanted: list[int],
) -> tuple[list[Tensor], Tensor]:
    layout = reference.memory_format(candidates[0])
    grads = [candidates[k].new_empty(grad.shape).contiguous(memory_format=layout) for k in wanted]
    return grads, weights.new_empty(weights.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    candidates, weights, ctx.kinds, _, ctx.eps = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # no zeros for the statistics
    ctx.save_for_backward(*candidates, weights, output[1])


def _backward(ctx: Any, grad: Tensor | None, *rest: Any) -> tuple[Any, ...]:
    if grad is None:
        return [None] * len(ctx.needs_input_grad[0]), None, None, None, None
    *candidates, weights, statistics = ctx.saved_tensors
    wanted = [k for k, needs in enumerate(ctx.needs_input_grad[0]) if needs]
    grads, grad_weights = torch.ops.autoreid_fast.mixed_op_sum_backward(
        grad, candidates, weights, ctx.kinds, statistics, ctx.eps, wanted
    )
    by_candidate = dict(zip(wanted, grads, strict=True))
    return [by_candidate.get(k) for k in range(len(candidates))], grad_weights, None, None, None


MIXED_OP_SUM = OpSpec(
    name="mixed_op_sum",
    schema="(Tensor[] candidates, Tensor weights, int[] kinds, Tensor? statistics, float eps) -> "
    "(Tensor total, Tensor used)",
    reference=reference.mixed_op_sum,
    fake=_fake,
    autograd=Autograd(
        inputs=("candidates", "weights"),
        setup_context=_setup_context,
        backward=_backward,
        op=OpSpec(
            name="mixed_op_sum_backward",
            schema="(Tensor grad, Tensor[] candidates, Tensor weights, int[] kinds, Tensor statistics, "
            "float eps, int[] wanted) -> (Tensor[] grads, Tensor grad_weights)",
            reference=reference.mixed_op_sum_backward,
            fake=_fake_backward,
            triton="autoreid_fast.kernels.mixed_op_sum",
        ),
    ),
    arguments=ARGUMENTS,
    sample=_sample,
    bad_inputs=(
        BadInput(
            "one value per channel",
            lambda sample: {
                "candidates": [torch.ones(1, 3, 1, 1)],
                "weights": torch.ones(1),
                "normalized": [True],
                "running_mean": None,
                "running_var": None,
                "statistics": None,
            },
            "expected more than one value per channel",
        ),
    ),
    family=("mixed_op_sum", "weighted_sum", "moments", "candidate_grads", "dots"),
    triton="autoreid_fast.kernels.mixed_op_sum",
    benchmark="mixed_op_sum",
)
