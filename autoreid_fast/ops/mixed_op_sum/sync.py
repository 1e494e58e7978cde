"""`mixed_op_sum` with the batch statistics of all processes, built on the op's own forward kernel."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from autoreid_fast.distributed.collectives import sum_over_processes
from autoreid_fast.ops.batch_norm.gradients import add_through_statistics, normalized_backward
from autoreid_fast.ops.batch_norm.statistics import BatchStatistics, local_statistics, merge_statistics
from autoreid_fast.ops.mixed_op_sum.kinds import GIVEN, PLAIN
from autoreid_fast.ops.mixed_op_sum.reference import SPATIAL

Op = Callable[..., tuple[Tensor, Tensor]]


class _SyncMixedOpSum(torch.autograd.Function):
    """The op with given statistics. Backward is plain torch, because a collective separates its sums from its
    gradients: it reads each candidate twice, like the kernel, but writes each gradient twice."""

    @staticmethod
    def forward(
        ctx: Any,
        op: Op,
        kinds: list[int],
        eps: float,
        weights: Tensor,
        mean: Tensor,
        variance: Tensor,
        size: Tensor,
        *candidates: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(weights, mean, variance, size, *candidates)
        ctx.kinds, ctx.eps = kinds, eps
        return op(list(candidates), weights, kinds, torch.stack([mean, variance]), eps)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        weights, mean, variance, size, *candidates = ctx.saved_tensors
        grads, dots = [], []
        for k, z in enumerate(candidates):
            if ctx.kinds[k] == GIVEN:
                scale = weights[k].repeat(mean.shape[1])
                grad_z, dot, total = normalized_backward(grad, z, scale, mean[k], variance[k], ctx.eps)
            else:
                grad_z, dot = weights[k].to(grad.dtype) * grad, (grad * z).sum(SPATIAL, dtype=mean.dtype)
            grads.append(grad_z)
            dots.append(dot)
        needs = ctx.needs_input_grad[-len(candidates) :]
        through = [k for k, kind in enumerate(ctx.kinds) if kind == GIVEN and needs[k]]
        if not through:
            return None, None, None, torch.stack(dots).sum(1), None, None, None, *grads
        *shared, total = sum_over_processes(torch.stack([*(dots[k] for k in through), total]))
        for k, dot in zip(through, shared, strict=True):
            statistics = BatchStatistics(mean[k], variance[k], size)
            sums = torch.stack([dot, total])
            add_through_statistics(grads[k], candidates[k], weights[k], statistics, sums, ctx.eps)
        return None, None, None, torch.stack(dots).sum(1), None, None, None, *grads


def sync_mixed_op_sum(
    op: Op,
    candidates: Sequence[Tensor],
    weights: Tensor,
    normalized: Sequence[bool],
    local: Sequence[Tensor | None] | None,
    eps: float,
) -> tuple[Tensor, BatchStatistics]:
    """y of `ops.mixed_op_sum` over the images of all processes, and the (K, C) statistics used.

    One collective forward and one backward. Gradients as in `sync_batch_norm`.

    Args:
        op: the op, or its reference.
        candidates: as in the op, like ``weights`` and ``eps``.
        normalized: K flags.
        local: this process's (2, C) statistics of each candidate, or None where they are not known.
    """
    first = candidates[0]
    rows = []
    with torch.no_grad():
        for z, flag, known in zip(candidates, normalized, local or [None] * len(candidates), strict=True):
            if known is None:
                if flag:
                    known = torch.stack(local_statistics(z))
                else:
                    known = torch.stack([weights.new_zeros(z.shape[1]), weights.new_ones(z.shape[1])])
            rows.append(known)
        mean, variance = torch.stack(rows, 1)
        statistics = merge_statistics(mean, variance, first.numel() // first.shape[1])
    kinds = [GIVEN if flag else PLAIN for flag in normalized]
    return _SyncMixedOpSum.apply(op, kinds, eps, weights, *statistics, *candidates), statistics
