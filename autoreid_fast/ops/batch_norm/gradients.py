"""Backward of a batch norm in two steps, with a collective between them."""

import torch
from torch import Tensor
from torch.nn import functional as F

from autoreid_fast.ops.batch_norm.statistics import BatchStatistics
from autoreid_fast.ops.batch_norm.strides import canonical_strides


def normalized_backward(
    grad: Tensor, x: Tensor, scale: Tensor, mean: Tensor, variance: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Backward of ``scale`` * (x - mean) / sqrt(variance + eps) with constant statistics, in one read.

    Returns the gradient of x, sum grad * xhat (C,), which is the gradient of ``scale``, and sum grad (C,).
    """
    return torch.ops.aten.native_batch_norm_backward(
        grad, canonical_strides(x), scale, mean, variance, None, None, False, eps, [True, True, True]
    )


def add_through_statistics(
    grad_x: Tensor, x: Tensor, scale: Tensor, statistics: BatchStatistics, sums: Tensor, eps: float
) -> None:
    """Add in place the part of x's gradient that flows through the statistics; one more pass over both.

    ``sums`` (2, C): sum grad * xhat and sum grad, over all processes.
    """
    mean, variance, size = statistics
    slope, shift = -scale * torch.rsqrt(variance + eps) * sums / size
    grad_x += F.batch_norm(x, mean, variance, slope, shift, eps=eps)
