"""3x3 average pool by torch, whose own backward pass is wrong on CUDA in some versions."""

import torch
from torch import Tensor
from torch.nn import functional as F

from autoreid_fast.devices import avg_pool_backward_is_right


def average_pool(x: Tensor, stride: int) -> Tensor:
    """Mean of the pixels of each 3x3 window of x (N, C, H, W) that lie in the image; padding 1.

    The result has the memory format of x.
    """
    if not needs_copy(x):
        return F.avg_pool2d(x, 3, stride, padding=1, count_include_pad=False)
    mean = F.avg_pool2d(x.contiguous(), 3, stride, padding=1, count_include_pad=False)
    return mean.contiguous(memory_format=torch.channels_last)


def average_pool_backward(grad: Tensor, x: Tensor, stride: int) -> Tensor:
    """Gradient of x for a gradient of `average_pool`."""
    image = x.contiguous() if needs_copy(x) else x
    gradient: Tensor = torch.ops.aten.avg_pool2d_backward(
        grad, image, [3, 3], [stride, stride], [1, 1], False, False, None
    )
    return gradient


def needs_copy(x: Tensor) -> bool:
    """Whether torch's backward pass would be wrong in the layout of x."""
    return x.is_cuda and not x.is_contiguous() and not avg_pool_backward_is_right()
