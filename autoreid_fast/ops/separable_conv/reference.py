"""ReLU, depthwise 3x3 and 1x1 convolution in plain PyTorch: the reference of `ops.separable_conv`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from autoreid_fast.ops.arguments import accumulation_dtype
from autoreid_fast.ops.stencil3x3.spec import STENCIL3X3


def _rows(images: Tensor) -> Tensor:
    """(F, N, C, Ho, Wo) -> (F, N * Ho * Wo, C): one matrix per filter."""
    return images.permute(0, 1, 3, 4, 2).flatten(1, 3)


def _filtered(x: Tensor, depthwise: Tensor, dilations: Sequence[int], stride: int) -> Tensor:
    """Depthwise filters of ReLU(x), (F, N, C, Ho, Wo)."""
    filtered: Tensor = STENCIL3X3.reference(x, depthwise, dilations, stride, True, False, False)[2]
    return filtered


def separable_conv(
    x: Tensor,
    depthwise: Tensor,
    pointwise: Tensor,
    dilations: Sequence[int],
    stride: int,
    statistics: bool,
) -> tuple[Tensor, Tensor]:
    """z (F, N, D, Ho, Wo), D last in memory, and its means and biased variances (F, 2, D), constants in the
    accumulation dtype; (0, 2, D) if not requested.

    z is differentiable by autograd, also twice.
    """
    filtered = _filtered(x, depthwise, dilations, stride)
    filters, batch, _, height, width = filtered.shape
    rows = torch.bmm(_rows(filtered), pointwise.transpose(1, 2))
    z = rows.view(filters, batch, height, width, -1).movedim(-1, -3)
    dtype = accumulation_dtype(x)
    if not statistics:
        return z, x.new_empty((0, 2, pointwise.shape[1]), dtype=dtype)
    variance, mean = torch.var_mean(rows.detach().to(dtype), 1, correction=0)
    return z, torch.stack([mean, variance], 1)


def separable_conv_backward(
    grad: Tensor,
    x: Tensor,
    depthwise: Tensor,
    pointwise: Tensor,
    dilations: Sequence[int],
    stride: int,
    need_x: bool,
    need_weights: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """d x, d depthwise and d pointwise, each with first dimension 0 if not needed."""
    grad_z = _rows(grad)
    filters, batch, _, height, width = grad.shape
    grad_filtered = torch.bmm(grad_z, pointwise).view(filters, batch, height, width, -1).movedim(-1, -3)
    assert STENCIL3X3.autograd is not None
    grad_x, grad_depthwise = STENCIL3X3.autograd.op.reference(
        None, None, grad_filtered, x, depthwise, dilations, stride, True, need_x, need_weights
    )
    if not need_weights:
        return grad_x, grad_depthwise, pointwise.new_empty((0, *pointwise.shape[1:]))
    filtered = _filtered(x, depthwise, dilations, stride)
    return grad_x, grad_depthwise, torch.bmm(grad_z.transpose(1, 2), _rows(filtered))
