"""Batch norm over the images of all processes, on any device (torch's SyncBatchNorm has no CPU kernel)."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from autoreid_fast.distributed.collectives import sum_over_processes
from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops.arguments import FLOATING, AccumulationOf, Arguments, TensorArgument
from autoreid_fast.ops.batch_norm.gradients import add_through_statistics, normalized_backward
from autoreid_fast.ops.batch_norm.statistics import BatchStatistics, local_statistics, merge_statistics
from autoreid_fast.ops.contract import is_transformed

__all__ = ["ARGUMENTS", "BatchStatistics", "sync_batch_norm"]

ARGUMENTS = Arguments(
    "sync_batch_norm",
    (
        TensorArgument("x", ("N", "C", ...), FLOATING),
        TensorArgument("weight", ("C",), AccumulationOf("x"), optional=True),
        TensorArgument("bias", ("C",), AccumulationOf("x"), optional=True),
    ),
)


def sync_batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float = 1e-5
) -> tuple[Tensor, BatchStatistics]:
    """Normalise x (N, C, ...) by the batch statistics of all processes, and return both.

    The gradients are those of the sum of all processes' losses; averaged over the processes they are those
    of the mean. In one process it is `F.batch_norm` in training mode.

    Args:
        x: floating; the same C and number of dimensions in every process, N may differ.
        weight: (C,) float32 (float64 for float64), or None.
        bias: the same as weight.
        eps: added to the variances.

    Raises:
        AutoReIDError: a wrong shape, dtype or device; one value per channel, which has no variance; a
            transform of `torch.func`.
        LostProcessError: another process has ended.

    Examples:
        >>> import torch
        >>> from autoreid_fast import ops
        >>> y, statistics = ops.sync_batch_norm(torch.randn(8, 3, 4, 4), torch.ones(3), torch.zeros(3))
        >>> y.shape, statistics.mean.shape, int(statistics.size)
        (torch.Size([8, 3, 4, 4]), torch.Size([3]), 128)
    """
    ARGUMENTS.check(x=x, weight=weight, bias=bias)
    if is_transformed():
        raise AutoReIDError(
            "sync_batch_norm: forward-mode differentiation and torch.func are not supported: turn sync_bn "
            "off, or differentiate in one process"
        )
    if x.numel() == 0:
        raise AutoReIDError(f"sync_batch_norm: `x` has shape {tuple(x.shape)}; expected no size 0")
    if x.numel() == x.shape[1] and current_shard().processes == 1:
        raise AutoReIDError(
            f"sync_batch_norm: `x` has shape {tuple(x.shape)}; expected more than one value per channel for "
            "batch statistics: use more images, or running statistics"
        )
    with torch.no_grad():
        mean, variance = local_statistics(x)
        statistics = merge_statistics(mean, variance, x.numel() // x.shape[1])
    # torch's backward pass reads weights as if they were contiguous
    scale = torch.ones_like(mean) if weight is None else weight.contiguous()
    shift = torch.zeros_like(mean) if bias is None else bias.contiguous()
    return _SyncBatchNorm.apply(x, scale, shift, *statistics, eps), statistics


class _SyncBatchNorm(torch.autograd.Function):
    """y = scale * (x - mean) / sqrt(var + eps) + shift; backward by two sums over all processes."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        mean: Tensor,
        variance: Tensor,
        size: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, scale, mean, variance, size)
        ctx.eps = eps
        return F.batch_norm(x, mean, variance, scale, shift, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, *saved = ctx.saved_tensors
        statistics = BatchStatistics(*saved)
        grad_x, dot, total = normalized_backward(
            grad, x, scale, statistics.mean, statistics.variance, ctx.eps
        )
        sums = sum_over_processes(torch.stack([dot, total]))
        add_through_statistics(grad_x, x, scale, statistics, sums, ctx.eps)
        return grad_x, dot, total, None, None, None, None
