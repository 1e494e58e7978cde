"""Batch norm over the images of all processes, on any device (torch's SyncBatchNorm has no CPU kernel)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from autoreid_fast.distributed.collectives import sum_over_processes
from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops.checks import require
from autoreid_fast.ops.strides import canonical_strides


class BatchStatistics(NamedTuple):
    """Of the values of all processes: mean and biased variance, of one shape, and () values a channel."""

    mean: Tensor
    variance: Tensor
    number: Tensor

    def move(self, running_mean: Tensor, running_var: Tensor, momentum: float) -> None:
        """Move running statistics towards these in place, the variance unbiased as torch keeps it."""
        with torch.no_grad():
            running_mean.lerp_(self.mean, momentum)
            running_var.lerp_(self.variance * (self.number / (self.number - 1).clamp(min=1)), momentum)


def merge_statistics(mean: Tensor, variance: Tensor, count: int) -> BatchStatistics:
    """Merge each process's own statistics, of ``count`` values a channel, by one collective.

    The merge is Chan's: within and between the processes, without the difference of two large squares.
    All processes get the same bits.
    """
    own = current_shard()
    table = mean.new_zeros(own.processes, 2 * mean.numel() + 1)
    table[own.process, :-1] = torch.stack([mean, variance]).flatten()
    table[own.process, -1] = count
    sum_over_processes(table)  # one row a process: nothing is added up yet
    means, variances = table[:, :-1].view(-1, 2, *mean.shape).unbind(1)
    counts = table[:, -1]
    total = counts.sum()
    part = (counts / total).view(-1, *[1] * mean.ndim)
    merged = (part * means).sum(0)
    return BatchStatistics(merged, (part * (variances + (means - merged).square())).sum(0), total)


def own_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of (N, C, ...) over all but the channels, (C,), float32 at least."""
    dims = [dim for dim in range(x.ndim) if dim != 1]
    wide = x if x.dtype == torch.float64 else x.float()
    variance, mean = torch.var_mean(wide, dims, correction=0)
    return mean, variance


def normalized_backward(
    grad: Tensor, x: Tensor, scale: Tensor, mean: Tensor, variance: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Backward of ``scale`` * (x - mean) / sqrt(variance + eps) with constant statistics, in one read.

    Returns the gradient of x, sum grad * xhat (C,), which is that of ``scale``, and sum grad (C,).
    """
    return torch.ops.aten.native_batch_norm_backward(
        grad, canonical_strides(x), scale, mean, variance, None, None, False, eps, [True, True, True]
    )


def add_through_statistics(
    grad_x: Tensor, x: Tensor, scale: Tensor, statistics: BatchStatistics, sums: Tensor, eps: float
) -> None:
    """Add in place to x's gradient what flows through the statistics: one more pass over x and ``grad_x``.

    ``sums`` (2, C): sum grad * xhat and sum grad, over all processes.
    """
    mean, variance, number = statistics
    slope, shift = -scale * torch.rsqrt(variance + eps) * sums / number
    grad_x += F.batch_norm(x, mean, variance, slope, shift, eps=eps)


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
        number: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, scale, mean, variance, number)
        ctx.eps = eps
        return F.batch_norm(x, mean, variance, scale, shift, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, *statistics = ctx.saved_tensors
        found = BatchStatistics(*statistics)
        grad_x, dot, total = normalized_backward(grad, x, scale, found.mean, found.variance, ctx.eps)
        sums = sum_over_processes(torch.stack([dot, total]))
        add_through_statistics(grad_x, x, scale, found, sums, ctx.eps)
        return grad_x, dot, total, None, None, None, None


def sync_batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float = 1e-5
) -> tuple[Tensor, BatchStatistics]:
    """Normalise x (N, C, ...) by the statistics of all processes' batches, and return these.

    The gradients are those of the sum of all processes' losses: averaged over the processes they are those
    of the mean. In one process it is `F.batch_norm` in training.

    Args:
        x: floating; the same C and dimensions in every process, N may differ.
        weight: (C,) float32 (float64 for float64), or None. bias: likewise.
        eps: added to the variances.

    Raises:
        AutoReIDError: a wrong shape, dtype or device; one value a channel, which has no variance.
        LostProcessError: another process is gone.
    """
    if x.ndim < 2 or 0 in x.shape or not x.is_floating_point():
        raise AutoReIDError(
            f"sync_batch_norm: x is {tuple(x.shape)} {x.dtype}; expected a floating (N, C, ...) without a 0"
        )
    if x.numel() == x.shape[1] and current_shard().processes == 1:
        raise AutoReIDError(
            f"sync_batch_norm: x is {tuple(x.shape)}: one value a channel has no batch statistics: "
            "more images, or evaluate by running statistics"
        )
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    for name, each in (("weight", weight), ("bias", bias)):
        if each is not None:
            reason = f"with x {tuple(x.shape)} {x.dtype} on {x.device}"
            require(f"sync_batch_norm: {name}", each, (x.shape[1],), wide, x.device, reason)
    with torch.no_grad():
        mean, variance = own_statistics(x)
        statistics = merge_statistics(mean, variance, x.numel() // x.shape[1])
    # contiguous: torch's batch norm reads the weight of its backward pass as if it were
    scale = torch.ones_like(mean) if weight is None else weight.contiguous()
    shift = torch.zeros_like(mean) if bias is None else bias.contiguous()
    return _SyncBatchNorm.apply(x, scale, shift, *statistics, eps), statistics
