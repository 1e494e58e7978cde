"""Weighted sum of a node's normalised candidates in plain PyTorch: the reference of `ops.mixed_op_sum`."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from autoreid_fast.ops.batch_norm.strides import canonical_strides, only_channels_last
from autoreid_fast.ops.mixed_op_sum.kinds import BATCH, FIXED, GIVEN, PLAIN

SPATIAL = (0, 2, 3)


def memory_format(first: Tensor) -> torch.memory_format:
    """Layout of the sum and of the gradients: that of the first candidate."""
    return torch.channels_last if only_channels_last(first) else torch.contiguous_format


def per_channel(values: Tensor) -> Tensor:
    """(C,) -> (1, C, 1, 1)."""
    return values[None, :, None, None]


def mixed_op_sum(
    candidates: Sequence[Tensor],
    weights: Tensor,
    kinds: Sequence[int],
    statistics: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """y = sum_k w_k (z_k - mean_k) / sqrt(var_k + eps), and the (2, K, C) means and variances used.

    Differentiable by autograd, through the batch statistics too, also if they are ``GIVEN``.

    Args:
        candidates: K tensors (N, C, H, W) of one shape and dtype.
        weights: (K,) of the accumulation dtype.
        kinds: one of PLAIN, BATCH, GIVEN and FIXED per candidate.
        statistics: (2, K, C), means and biased variances; only rows of GIVEN and FIXED candidates are read.
        eps: added to the variances.
    """
    total, used = None, []
    for k, (candidate, weight, kind) in enumerate(zip(candidates, weights.unbind(), kinds, strict=True)):
        z = canonical_strides(candidate).to(weights.dtype)
        mean, variance = torch.zeros_like(z[0, :, 0, 0]), torch.ones_like(z[0, :, 0, 0])
        if kind in (GIVEN, FIXED):
            assert statistics is not None
            mean, variance = statistics[0, k].clone(), statistics[1, k].clone()
        if kind == BATCH:  # with momentum 1 the running statistics are the batch's
            count = z.numel() // z.shape[1]
            z = F.batch_norm(z, mean, variance, training=True, momentum=1.0, eps=eps)
            variance = variance * ((count - 1) / count)  # torch's running variance is unbiased
        elif kind == FIXED:
            z = F.batch_norm(z, mean, variance, eps=eps)
        elif kind == GIVEN:
            # The given values, with the gradient of the statistics computed from z.
            computed_mean, computed_variance = z.mean(SPATIAL), z.var(SPATIAL, unbiased=False)
            shift = computed_mean + (mean - computed_mean).detach()
            spread = computed_variance + (variance - computed_variance).detach()
            z = (z - per_channel(shift)) * per_channel(torch.rsqrt(spread + eps))
        total = weight * z if total is None else total + weight * z
        used.append(torch.stack([mean, variance]))
    assert total is not None
    total = total.to(candidates[0].dtype).contiguous(memory_format=memory_format(candidates[0]))
    return total, torch.stack(used, 1)


def mixed_op_sum_backward(
    grad: Tensor,
    candidates: Sequence[Tensor],
    weights: Tensor,
    kinds: Sequence[int],
    statistics: Tensor,
    eps: float,
    wanted: Sequence[int],
) -> tuple[list[Tensor], Tensor]:
    """Gradients of the candidates whose indices are in ``wanted``, in that order, and of the weights (K,).

    ``statistics`` (2, K, C): the means and variances that the forward pass returned.
    """
    g = grad.to(weights.dtype)
    grad_sum = g.sum(SPATIAL)
    count = g.numel() // g.shape[1]
    layout = memory_format(candidates[0])
    grad_weights, grads = [], {}
    for k, (candidate, weight, kind) in enumerate(zip(candidates, weights.unbind(), kinds, strict=True)):
        z = candidate.to(weights.dtype)
        scale = torch.ones_like(grad_sum)
        if kind != PLAIN:
            scale = torch.rsqrt(statistics[1, k] + eps)
            z = (z - per_channel(statistics[0, k])) * per_channel(scale)
        dot = (g * z).sum(SPATIAL)
        grad_weights.append(dot.sum())
        if k in wanted:
            inner = g
            if kind in (BATCH, GIVEN):
                inner = g - per_channel(grad_sum / count) - z * per_channel(dot / count)
            grads[k] = (
                (per_channel(weight * scale) * inner).to(candidate.dtype).contiguous(memory_format=layout)
            )
    return [grads[k] for k in wanted], torch.stack(grad_weights)
