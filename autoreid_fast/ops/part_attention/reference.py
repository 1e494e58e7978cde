"""The part-aware module up to one bias vector per strip in plain PyTorch: the reference of
`ops.part_attention`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from autoreid_fast.ops.part_attention.strips import strips


def pixels_last(tensor: Tensor) -> Tensor:
    """Copy of (N, C, H, W) with C last in memory, also where sizes are 1."""
    return tensor.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def strip_means(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(N, C, H, W) -> (N, M, C)."""
    return torch.stack([x[:, :, a:b].to(dtype).mean((2, 3)) for a, b in strips(x.shape[2])], 1)


def project(means: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """ReLU and projection of the strip means (N, M, C), with each edge's weights -> (E, N, M, h)."""
    return torch.einsum("nmc,emhc->enmh", means.relu(), weight) + bias[:, None]


def scaled(normalized: Tensor, affine: Tensor | None) -> Tensor:
    """Body vectors f (E, N, M, h): the affine part of the batch norm, if there is one."""
    return normalized if affine is None else normalized * affine[0, :, None] + affine[1, :, None]


def _linear(f: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Linear layer on (E, N, M, h), with each edge's weights."""
    return f @ weight[:, None].mT + bias[:, None, None]


def attend(
    f: Tensor,
    key_weight: Tensor,
    key_bias: Tensor,
    query_weight: Tensor,
    query_bias: Tensor,
    fuse_weight: Tensor,
    relu: bool,
) -> Tensor:
    """Body vectors f (E, N, M, h) -> bias (E, N, M, D)."""
    keys, queries = _linear(f, key_weight, key_bias), _linear(f, query_weight, query_bias)
    part = torch.softmax(keys @ queries.mT, -1) @ f
    return (part.relu() if relu else part) @ fuse_weight[:, None].mT


def part_attention(
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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """bias (E, N, M, D), and what the backward pass needs: the strip means (N, M, C), the normalised
    projections (E, N, M, h), and the means and biased variances (2, E, M, h) used.

    Differentiable by autograd, also twice. Arguments as in `ops.part_attention`, except: all but x are of
    the accumulation dtype, and ``statistics`` (2, E, M, h) are constants to normalise by, or None for batch
    statistics.
    """
    means = strip_means(x, project_weight.dtype)
    projected = project(means, project_weight, project_bias)
    if statistics is None:
        mean, variance = projected.mean(1), projected.var(1, unbiased=False)
    else:
        mean, variance = statistics[0].clone(), statistics[1].clone()
    normalized = (projected - mean[:, None]) * torch.rsqrt(variance + eps)[:, None]
    f = scaled(normalized, affine)
    bias = attend(f, key_weight, key_bias, query_weight, query_bias, fuse_weight, relu)
    return bias.to(x.dtype).contiguous(), means, normalized.contiguous(), torch.stack([mean, variance])


def part_attention_backward(
    grad: Tensor,
    x: Tensor,
    parameters: Sequence[Tensor],
    affine: Tensor | None,
    means: Tensor,
    normalized: Tensor,
    used: Tensor,
    batch: bool,
    relu: bool,
    eps: float,
    need_x: bool,
    need_parameters: bool,
) -> tuple[Tensor, list[Tensor]]:
    """d x, channels_last, and the gradients of the seven parameters in order and of ``affine``, if given.

    ``batch``: whether ``used`` are batch statistics. If not needed, d x is (0, C, H, W) and the list empty.
    """
    project_weight, _, key_weight, key_bias, query_weight, query_bias, fuse_weight = parameters
    f = scaled(normalized, affine)
    keys, queries = _linear(f, key_weight, key_bias), _linear(f, query_weight, query_bias)
    attention = torch.softmax(keys @ queries.mT, -1)
    part = attention @ f

    g = grad.to(means.dtype)
    d_part = g @ fuse_weight[:, None]
    if relu:
        d_part = d_part * (part > 0)
    d_attention = d_part @ f.mT
    d_scores = attention * (d_attention - (d_attention * attention).sum(-1, keepdim=True))
    d_keys, d_queries = d_scores @ queries, d_scores.mT @ keys
    d_f = attention.mT @ d_part + d_keys @ key_weight[:, None] + d_queries @ query_weight[:, None]
    d_normalized = d_f if affine is None else d_f * affine[0, :, None]
    inner = d_normalized
    if batch:
        slope = (d_normalized * normalized).mean(1, keepdim=True)
        inner = d_normalized - d_normalized.mean(1, keepdim=True) - normalized * slope
    d_projected = inner * torch.rsqrt(used[1] + eps)[:, None]

    grad_x = x[:0]
    if need_x:
        d_means = torch.einsum("enmh,emhc->nmc", d_projected, project_weight) * (means > 0)
        rows = [
            (d_means[:, i, :, None, None] / ((b - a) * x.shape[3])).expand(-1, -1, b - a, x.shape[3])
            for i, (a, b) in enumerate(strips(x.shape[2]))
        ]
        grad_x = torch.cat(rows, 2).to(x.dtype)
    grads: list[Tensor] = []
    if need_parameters:
        grads = [
            torch.einsum("enmh,nmc->emhc", d_projected, means.relu()),
            d_projected.sum(1),
            torch.einsum("enmi,enmj->eij", d_keys, f),
            d_keys.sum((1, 2)),
            torch.einsum("enmi,enmj->eij", d_queries, f),
            d_queries.sum((1, 2)),
            torch.einsum("enmd,enmh->edh", g, part.relu() if relu else part),
        ]
        if affine is not None:
            grads.append(torch.stack([(d_f * normalized).sum(1), d_f.sum(1)]))
    return pixels_last(grad_x), [grad.contiguous() for grad in grads]
