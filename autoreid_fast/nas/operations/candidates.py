"""Built-in candidate operations O of Sec. 3.1: (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)).

``affine`` is False in the supernet, so that only alpha weighs the operations (as in DARTS [20]): no batch
norm learns a scale, and the pools are followed by a batch norm like the convolutions. In a derived network it
is True, and the pools have no batch norm. Convolutions have no bias, since a batch norm follows.
"""

from torch import nn

from autoreid_fast.nas.operations.layers import (
    AveragePool,
    DepthwiseSeparable,
    FactorizedReduce,
    PoolBN,
    SepConv,
)
from autoreid_fast.nas.operations.part_aware import PartAware
from autoreid_fast.nas.operations.registry import register_operation


def with_search_norm(operation: nn.Module, channels: int, affine: bool) -> nn.Module:
    """Add the batch norm that follows an operation without weights in a supernet (``affine`` False)."""
    return operation if affine else PoolBN(operation, channels)


@register_operation("max_pool_3x3")
def max_pool_3x3(channels: int, stride: int, affine: bool) -> nn.Module:
    """Max pooling, 3x3."""
    return with_search_norm(nn.MaxPool2d(3, stride, padding=1), channels, affine)


@register_operation("avg_pool_3x3")
def avg_pool_3x3(channels: int, stride: int, affine: bool) -> nn.Module:
    """Average pooling, 3x3, without the padding."""
    return with_search_norm(AveragePool(stride), channels, affine)


@register_operation("skip_connect")
def skip_connect(channels: int, stride: int, affine: bool) -> nn.Module:
    """Identity at stride 1, FactorizedReduce at stride 2."""
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)


@register_operation("sep_conv_3x3")
def sep_conv_3x3(channels: int, stride: int, affine: bool) -> SepConv:
    """Depthwise separable convolution, 3x3, applied twice."""
    return SepConv(channels, 3, stride, affine)


@register_operation("dil_conv_3x3")
def dil_conv_3x3(channels: int, stride: int, affine: bool) -> DepthwiseSeparable:
    """Depthwise separable convolution, 3x3, of dilation 2."""
    return DepthwiseSeparable(channels, 3, stride, 2, affine)


@register_operation("part_aware")
def part_aware(channels: int, stride: int, affine: bool) -> PartAware:
    """Part-aware module (Sec. 3.3)."""
    return PartAware(channels, stride, affine)


@register_operation("sep_conv_5x5")
def sep_conv_5x5(channels: int, stride: int, affine: bool) -> SepConv:
    """Depthwise separable convolution, 5x5, applied twice (in GDAS's genotype)."""
    return SepConv(channels, 5, stride, affine)


@register_operation("dil_conv_5x5")
def dil_conv_5x5(channels: int, stride: int, affine: bool) -> DepthwiseSeparable:
    """Depthwise separable convolution, 5x5, of dilation 2 (in GDAS's genotype)."""
    return DepthwiseSeparable(channels, 5, stride, 2, affine)
