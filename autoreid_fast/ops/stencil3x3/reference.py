"""Max pool, average pool and depthwise 3x3 filters in plain PyTorch: the reference of `ops.stencil3x3`."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from autoreid_fast.ops.stencil3x3.average_pool import average_pool, average_pool_backward
from autoreid_fast.ops.stencil3x3.sizes import out_size

_aten = torch.ops.aten


def _pixels_last(tensor: Tensor) -> Tensor:
    """A copy of (..., C, H, W) with C last in memory."""
    pixels = tensor.movedim(-3, -1)
    return torch.empty_like(pixels, memory_format=torch.contiguous_format).copy_(pixels).movedim(-1, -3)


def stencil3x3(
    x: Tensor,
    weights: Tensor,
    dilations: Sequence[int],
    stride: int,
    relu: bool,
    max_pool: bool,
    avg_pool: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Max pool, average pool (each (0, C, Ho, Wo) if not requested) and filtered (F, N, C, Ho, Wo).

    Differentiable by autograd, also twice.
    """
    batch, channels, height, width = x.shape
    size = (out_size(height, stride), out_size(width, stride))
    not_requested = x.new_empty((0, *size, channels)).movedim(-1, -3)
    largest = F.max_pool2d(x, 3, stride, padding=1) if max_pool else None
    mean = average_pool(x, stride) if avg_pool else None
    source = F.relu(x) if relu else x
    filtered = [
        F.conv2d(source, weight[:, None], stride=stride, padding=dilation, dilation=dilation, groups=channels)
        for weight, dilation in zip(weights, dilations, strict=True)
    ]
    return (
        not_requested if largest is None else _pixels_last(largest),
        not_requested.clone() if mean is None else _pixels_last(mean),
        _pixels_last(torch.stack(filtered))
        if filtered
        else x.new_empty((0, batch, *size, channels)).movedim(-1, -3),
    )


def stencil3x3_backward(
    grad_max: Tensor | None,
    grad_avg: Tensor | None,
    grad_filtered: Tensor | None,
    x: Tensor,
    weights: Tensor,
    dilations: Sequence[int],
    stride: int,
    relu: bool,
    need_x: bool,
    need_weights: bool,
) -> tuple[Tensor, Tensor]:
    """d x and d weights, each with first dimension 0 if not needed; a gradient of None counts as zero."""
    channels = x.shape[1]
    source = F.relu(x) if relu else x
    grad_x = torch.zeros_like(x)
    grad_weights = torch.zeros_like(weights, memory_format=torch.contiguous_format)
    if grad_filtered is not None:
        for f, dilation in enumerate(dilations):
            pads = [dilation, dilation]
            grad_source, grad_weight, _ = _aten.convolution_backward(
                grad_filtered[f],
                source,
                weights[f][:, None],
                None,
                [stride, stride],
                pads,
                pads,
                False,
                [0, 0],
                channels,
                [need_x, need_weights, False],
            )
            if need_x:
                grad_x += grad_source
            if need_weights:
                grad_weights[f] = grad_weight[:, 0]
        if relu:
            grad_x = _aten.threshold_backward(grad_x, x, 0)
    window: tuple[list[int], ...] = ([3, 3], [stride, stride], [1, 1])
    if need_x and grad_avg is not None:
        grad_x = grad_x + average_pool_backward(grad_avg, x, stride)
    if need_x and grad_max is not None:
        _, indices = _aten.max_pool2d_with_indices(x, *window)
        grad_x = grad_x + _aten.max_pool2d_with_indices_backward(grad_max, x, *window, [1, 1], False, indices)
    return _pixels_last(grad_x if need_x else grad_x[:0]), grad_weights if need_weights else grad_weights[:0]
