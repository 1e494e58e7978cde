"""Reference of `ops.part_attention` in plain PyTorch; csrc/part_attention/part_attention.h has the maths."""

from collections.abc import Sequence

import torch
from torch import Tensor

from autoreid_fast.ops.part_attention.strips import strip_bounds


def pixels_last(tensor: Tensor) -> Tensor:
    """Copy of (N, C, H, W) with C last in memory, also where sizes are 1."""
    return tensor.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


def strip_means(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(N, C, H, W) -> (N, M, C)."""
    return torch.stack(
        [x[:, :, first:last].to(dtype).mean((2, 3)) for first, last in strip_bounds(x.shape[2])], 1
    )


def project(means: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """ReLU and projection of the strip means (N, M, C), with each edge's weights -> (E, N, M, h)."""
    return torch.einsum("nmc,emhc->enmh", means.relu(), weight) + bias[:, None]


def body_vectors(normalized: Tensor, affine: Tensor | None) -> Tensor:
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
    """Body vectors f (E, N, M, h) -> strip bias (E, N, M, D)."""
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
    """Strip bias (E, N, M, D), and what the backward pass needs: the strip means (N, M, C), the normalised
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
    f = body_vectors(normalized, affine)
    strip_bias = attend(f, key_weight, key_bias, query_weight, query_bias, fuse_weight, relu)
    return strip_bias.to(x.dtype).contiguous(), means, normalized.contiguous(), torch.stack([mean, variance])


def _linear_grads(grad: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `_linear`'s weight and bias."""
    return torch.einsum("enmi,enmj->eij", grad, f), grad.sum((1, 2))


def _norm_grad(
    grad_f: Tensor,
    normalized: Tensor,
    affine: Tensor | None,
    variance: Tensor,
    batch_statistics: bool,
    eps: float,
) -> Tensor:
    """Gradient of the projections (E, N, M, h) from that of f."""
    grad = grad_f if affine is None else grad_f * affine[0, :, None]
    if batch_statistics:
        mean_projection = (grad * normalized).mean(1, keepdim=True)
        grad = grad - grad.mean(1, keepdim=True) - normalized * mean_projection
    return grad * torch.rsqrt(variance + eps)[:, None]


def _spread(grad_means: Tensor, height: int, width: int) -> Tensor:
    """Gradient of x (N, C, H, W): the gradient of a strip's mean, divided among its pixels."""
    rows = [
        (grad_means[:, m, :, None, None] / ((last - first) * width)).expand(-1, -1, last - first, width)
        for m, (first, last) in enumerate(strip_bounds(height))
    ]
    return torch.cat(rows, 2)


def part_attention_backward(
    grad: Tensor,
    x: Tensor,
    parameters: Sequence[Tensor],
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
    """d x, channels_last, and the gradients of the seven parameters in order and of ``affine``, if given.

    ``batch_statistics``: whether ``norm_statistics`` are of the batch. If not needed, d x is
    (0, C, H, W) and the list empty.
    """
    project_weight, _, key_weight, key_bias, query_weight, query_bias, fuse_weight = parameters
    f = body_vectors(normalized, affine)
    keys, queries = _linear(f, key_weight, key_bias), _linear(f, query_weight, query_bias)
    attention = torch.softmax(keys @ queries.mT, -1)
    part = attention @ f

    grad = grad.to(means.dtype)
    grad_part = grad @ fuse_weight[:, None]
    if relu:
        grad_part = grad_part * (part > 0)
    grad_attention = grad_part @ f.mT
    grad_scores = attention * (grad_attention - (grad_attention * attention).sum(-1, keepdim=True))
    grad_keys, grad_queries = grad_scores @ queries, grad_scores.mT @ keys
    grad_f = attention.mT @ grad_part + grad_keys @ key_weight[:, None] + grad_queries @ query_weight[:, None]
    grad_projected = _norm_grad(grad_f, normalized, affine, norm_statistics[1], batch_statistics, eps)

    grad_x = x[:0]
    if need_x:
        grad_means = torch.einsum("enmh,emhc->nmc", grad_projected, project_weight) * (means > 0)
        grad_x = _spread(grad_means, *x.shape[2:]).to(x.dtype)
    grads: list[Tensor] = []
    if need_parameters:
        grads = [
            torch.einsum("enmh,nmc->emhc", grad_projected, means.relu()),
            grad_projected.sum(1),
            *_linear_grads(grad_keys, f),
            *_linear_grads(grad_queries, f),
            torch.einsum("enmd,enmh->edh", grad, part.relu() if relu else part),
        ]
        if affine is not None:
            grads.append(torch.stack([(grad_f * normalized).sum(1), grad_f.sum(1)]))
    return pixels_last(grad_x), [grad.contiguous() for grad in grads]
