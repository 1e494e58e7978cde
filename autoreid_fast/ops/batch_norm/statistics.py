"""Batch statistics over all processes: one collective merges what each process has computed."""

from typing import NamedTuple

import torch
from torch import Tensor

from autoreid_fast.distributed.collectives import sum_over_processes
from autoreid_fast.distributed.processes import current_shard


class BatchStatistics(NamedTuple):
    """Mean and biased variance over the images of all processes, and their sample size."""

    mean: Tensor
    variance: Tensor
    """Of the shape of `mean`."""
    size: Tensor
    """() values per channel."""

    def update_running(self, running_mean: Tensor, running_var: Tensor, momentum: float) -> None:
        """Update running statistics in place; the running variance is unbiased, as in torch."""
        with torch.no_grad():
            _lerp_wide(running_mean, self.mean, momentum)
            unbiased = self.variance * (self.size / (self.size - 1).clamp(min=1))
            _lerp_wide(running_var, unbiased, momentum)


def local_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of (N, C, ...) per channel, (C,), in this process; at least float32."""
    dims = [dim for dim in range(x.ndim) if dim != 1]
    wide = x if x.dtype == torch.float64 else x.float()
    variance, mean = torch.var_mean(wide, dims, correction=0)
    return mean, variance


def update_running(
    running_mean: Tensor, running_var: Tensor, statistics: Tensor, count: int, momentum: float
) -> None:
    """Update running statistics in place by batch statistics of this process.

    ``statistics`` (2, ...): means and biased variances of ``count`` values per channel.
    """
    with torch.no_grad():
        mean, unbiased = statistics[0], statistics[1] * (count / max(count - 1, 1))
        if running_mean.dtype == statistics.dtype:
            torch._foreach_lerp_((running_mean, running_var), (mean, unbiased), momentum)
        else:  # of a module in half precision
            _lerp_wide(running_mean, mean, momentum)
            _lerp_wide(running_var, unbiased, momentum)


def _lerp_wide(running: Tensor, batch: Tensor, momentum: float) -> None:
    """Update ``running`` in place, computed in the dtype of ``batch``."""
    running.copy_(running.to(batch.dtype).lerp_(batch, momentum))


def merge_statistics(mean: Tensor, variance: Tensor, count: int) -> BatchStatistics:
    """Merge the statistics of all processes by one collective.

    By Chan's formula, which adds the variances within and between the processes, instead of subtracting
    two large squares. All processes get the same bits.

    Args:
        mean: of this process's values; variance: biased, of the same shape.
        count: this process's values per channel.
    """
    shard = current_shard()
    table = mean.new_zeros(shard.processes, 2 * mean.numel() + 1)
    table[shard.process, :-1] = torch.stack([mean, variance]).flatten()
    table[shard.process, -1] = count
    sum_over_processes(table)  # one row per process; the other rows are zero
    means, variances = table[:, :-1].view(-1, 2, *mean.shape).unbind(1)
    counts = table[:, -1]
    total = counts.sum()
    weights = (counts / total).view(-1, *[1] * mean.ndim)
    merged_mean = (weights * means).sum(0)
    merged_variance = (weights * (variances + (means - merged_mean).square())).sum(0)
    return BatchStatistics(merged_mean, merged_variance, total)
