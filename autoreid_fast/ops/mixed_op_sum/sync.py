"""`mixed_op_sum` with the batch statistics of all processes, around the op's own forward kernel."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from autoreid_fast.distributed.collectives import sum_over_processes
from autoreid_fast.ops.batch_norm import (
    BatchStatistics,
    add_through_statistics,
    merge_statistics,
    normalized_backward,
    own_statistics,
)
from autoreid_fast.ops.mixed_op_sum import reference as twin

Op = Callable[..., tuple[Tensor, Tensor]]


class _SyncMixedOpSum(torch.autograd.Function):
    """The op with given statistics. Backward is plain torch, for between its sums and its gradients lies a
    collective: a candidate is read twice as by the kernel, its gradient written, read and written again."""

    @staticmethod
    def forward(
        ctx: Any,
        op: Op,
        kinds: list[int],
        eps: float,
        weights: Tensor,
        mean: Tensor,
        variance: Tensor,
        number: Tensor,
        *candidates: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(weights, mean, variance, number, *candidates)
        ctx.kinds, ctx.eps = kinds, eps
        return op(list(candidates), weights, kinds, torch.stack([mean, variance]), eps)[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        weights, mean, variance, number, *candidates = ctx.saved_tensors
        grads, dots = [], []
        for k, z in enumerate(candidates):
            if ctx.kinds[k] == twin.GIVEN:
                scale = weights[k].repeat(mean.shape[1])
                grad_z, dot, total = normalized_backward(grad, z, scale, mean[k], variance[k], ctx.eps)
            else:
                grad_z, dot = weights[k].to(grad.dtype) * grad, (grad * z).sum(twin.SPATIAL, dtype=mean.dtype)
            grads.append(grad_z)
            dots.append(dot)
        needs = ctx.needs_input_grad[-len(candidates) :]
        through = [k for k, kind in enumerate(ctx.kinds) if kind == twin.GIVEN and needs[k]]
        if not through:
            return None, None, None, torch.stack(dots).sum(1), None, None, None, *grads
        *shared, total = sum_over_processes(torch.stack([*(dots[k] for k in through), total]))
        for k, dot in zip(through, shared, strict=True):
            statistics = BatchStatistics(mean[k], variance[k], number)
            sums = torch.stack([dot, total])
            add_through_statistics(grads[k], candidates[k], weights[k], statistics, sums, ctx.eps)
        return None, None, None, torch.stack(dots).sum(1), None, None, None, *grads


def sync_mixed_op_sum(
    op: Op,
    candidates: Sequence[Tensor],
    weights: Tensor,
    normalized: Sequence[bool],
    own: Sequence[Tensor | None],
    eps: float,
) -> tuple[Tensor, BatchStatistics]:
    """y as `ops.mixed_op_sum` has it, over the images of all processes, and the (K, C) statistics it took.

    One collective forward and one backward. Gradients as `sync_batch_norm` has them.

    Args:
        op: the op, or its twin. candidates, weights, eps: as the op has them.
        normalized: K flags.
        own: this process's (2, C) statistics of the candidates where they are known already.
    """
    first = candidates[0]
    rows = []
    with torch.no_grad():
        for z, flag, known in zip(candidates, normalized, own, strict=True):
            if known is None:
                if flag:
                    known = torch.stack(own_statistics(z))
                else:
                    known = torch.stack([weights.new_zeros(z.shape[1]), weights.new_ones(z.shape[1])])
            rows.append(known)
        mean, variance = torch.stack(rows, 1)
        statistics = merge_statistics(mean, variance, first.numel() // first.shape[1])
    kinds = [twin.GIVEN if flag else twin.PLAIN for flag in normalized]
    return _SyncMixedOpSum.apply(op, kinds, eps, weights, *statistics, *candidates), statistics
