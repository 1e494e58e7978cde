"""ReLU, depthwise 3x3 and pointwise 1x1 convolution of one source, all its filters at once: the (dilated)
separable convolutions of Sec. 3.1 up to their batch norm."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from autoreid_fast.ops.contract import run
from autoreid_fast.ops.separable_conv.spec import ARGUMENTS, SEPARABLE_CONV

__all__ = ["SeparableConv", "separable_conv"]


class SeparableConv(NamedTuple):
    """Outputs of the convolutions and their batch statistics."""

    z: Tensor
    """(F, N, D, ceil(H / stride), ceil(W / stride)) in the dtype of x. In memory (F, N, Ho, Wo, D): each z[f]
    is contiguous in `torch.channels_last`."""
    statistics: Tensor | None
    """(F, 2, D): mean and biased variance of each z[f] over N, Ho and Wo, in float32 (float64 for float64),
    in the form that `mixed_op_sum` accepts; not differentiable. None if not requested."""


def separable_conv(
    x: Tensor,
    depthwise: Tensor,
    pointwise: Tensor,
    dilations: Sequence[int],
    stride: int = 1,
    statistics: bool = False,
) -> SeparableConv:
    """F separable convolutions of ReLU(x): a depthwise 3x3 filter each, followed by a 1x1 convolution.

    A depthwise filter has its dilation as padding; there are no biases.

    Args:
        x: (N, C, H, W), no size 0, in float32, float16, bfloat16 or float64 (which on CUDA uses the
            reference). Contiguous `torch.channels_last` tensors are read in place, others are copied.
            Half types are computed in float32, on the CPU from a float32 copy; on CUDA the depthwise output
            is rounded to the half type, as unfused convolutions would store it.
        depthwise: (F, C, 3, 3), F from 1 to 64, of the dtype and on the device of x.
        pointwise: (F, D, C), of the same dtype and device.
        dilations: F numbers, each 1 or 2.
        stride: 1 or 2, of all filters.
        statistics: whether to compute the batch statistics of z.

    Returns:
        z and its statistics. The backward pass keeps only x and the weights: it recomputes the depthwise
        outputs where weights need gradients, and is deterministic for any number of threads; the gradient of
        x is channels_last. It is differentiable once (twice under `ops.backend("reference")`).

    Raises:
        AutoReIDError: a wrong shape, dtype, device, dilation or stride.

    Examples:
        >>> import torch
        >>> from autoreid_fast import ops
        >>> x = torch.randn(16, 32, 96, 32).contiguous(memory_format=torch.channels_last)
        >>> depthwise, pointwise = torch.randn(2, 32, 3, 3), torch.randn(2, 64, 32)
        >>> z, statistics = ops.separable_conv(x, depthwise, pointwise, dilations=(1, 2), statistics=True)
        >>> z.shape, statistics.shape
        (torch.Size([2, 16, 64, 96, 32]), torch.Size([2, 2, 64]))
    """
    ARGUMENTS.check(
        x=x,
        depthwise=depthwise,
        pointwise=pointwise,
        dilations=dilations,
        stride=stride,
        statistics=statistics,
    )
    z, moments = run(SEPARABLE_CONV, x, depthwise, pointwise, list(dilations), stride, statistics)
    return SeparableConv(z, moments if statistics else None)
