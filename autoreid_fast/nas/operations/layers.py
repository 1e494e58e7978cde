"""Layers that operations and cells are made of. Convolutions have no bias, since a batch norm follows."""

from typing import Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoreid_fast.ops.stencil3x3.average_pool import average_pool

LayerType = TypeVar("LayerType", bound=nn.Module)


class Layer(Generic[LayerType]):
    """Class attribute that names one layer of an `nn.Sequential`.

    Checkpoints keep the layer's position as its key: they were written before the layers had names.
    """

    def __init__(self, position: int) -> None:
        self.position = position

    def __get__(self, sequential: nn.Sequential, owner: type[nn.Sequential]) -> LayerType:
        return cast(LayerType, sequential[self.position])


class ConvBN(nn.Sequential):
    """1x1 convolution, batch norm: (N, in, H, W) -> (N, out, H, W)."""

    convolution = Layer[nn.Conv2d](0)
    norm = Layer[nn.BatchNorm2d](1)

    def __init__(self, in_channels: int, out_channels: int, affine: bool) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels, affine=affine),
        )


class ReLUConvBN(nn.Sequential):
    """ReLU, 1x1 convolution, batch norm: a cell's preprocessing, (N, in, H, W) -> (N, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, affine: bool) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels, affine=affine),
        )


class FactorizedReduce(nn.Module):
    """Halve the resolution: (N, in, H, W) -> (N, out, ceil(H / 2), ceil(W / 2)).

    ReLU; one 1x1 convolution of stride 2 on x and one on x shifted by (1, 1), concatenated; batch norm. At
    odd sizes the shifted x lacks a row or a column, which is padded with zeros.
    """

    def __init__(self, in_channels: int, out_channels: int, affine: bool) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv = nn.Conv2d(in_channels, half, 1, bias=False)
        self.conv_shifted = nn.Conv2d(in_channels, out_channels - half, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, affine=affine)

    @property
    def norm(self) -> nn.BatchNorm2d:
        """The batch norm that ends the operation."""
        return self.bn

    def forward(self, x: Tensor) -> Tensor:
        # A 1x1 convolution of stride 2 reads every other pixel: slicing first is a third faster.
        even, odd = F.relu(x[:, :, ::2, ::2]), F.relu(x[:, :, 1::2, 1::2])
        height, width = x.shape[2:]
        if height % 2 or width % 2:
            odd = F.pad(odd, (0, width % 2, 0, height % 2))
        return self.bn(torch.cat([self.conv(even), self.conv_shifted(odd)], dim=1))


class DepthwiseSeparable(nn.Sequential):
    """ReLU, depthwise convolution, pointwise convolution, batch norm; a dil_conv, or half of a sep_conv."""

    depthwise = Layer[nn.Conv2d](1)
    pointwise = Layer[nn.Conv2d](2)
    norm = Layer[nn.BatchNorm2d](3)

    def __init__(self, channels: int, kernel: int, stride: int, dilation: int, affine: bool) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(
                channels, channels, kernel, stride, padding, dilation=dilation, groups=channels, bias=False
            ),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels, affine=affine),
        )


class SepConv(nn.Sequential):
    """Depthwise separable convolution, applied twice; the first one has the stride."""

    first = Layer[DepthwiseSeparable](0)
    second = Layer[DepthwiseSeparable](1)
    half_type: type[DepthwiseSeparable] = DepthwiseSeparable

    def __init__(self, channels: int, kernel: int, stride: int, affine: bool) -> None:
        super().__init__(
            self.half_type(channels, kernel, stride, 1, affine),
            self.half_type(channels, kernel, 1, 1, affine),
        )

    @property
    def norm(self) -> nn.BatchNorm2d:
        """The batch norm that ends the operation."""
        return self.second.norm


class AveragePool(nn.Module):
    """3x3 average pool without the padding, with the right gradient on every device (`average_pool`)."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def extra_repr(self) -> str:
        return f"stride={self.stride}"

    def forward(self, x: Tensor) -> Tensor:
        return average_pool(x, self.stride)


class PoolBN(nn.Sequential):
    """Pooling, or any other operation without weights, and the batch norm that follows it in a search."""

    norm = Layer[nn.BatchNorm2d](1)

    def __init__(self, pool: nn.Module, channels: int) -> None:
        super().__init__(pool, nn.BatchNorm2d(channels, affine=False))
