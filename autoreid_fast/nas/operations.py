"""The candidate operations O of Sec. 3.1: (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)).

``affine`` is False in the supernet, where alpha alone shall weigh the operations (as in DARTS [20]): no
batch norm learns a scale, and the pools get a batch norm behind them to be on a par with the convolutions.
In a derived network it is True and the pools stand alone. No convolution has a bias: a batch norm follows.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.part_aware import PartAware


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

    ReLU; one 1x1 convolution of stride 2 on x and one on x shifted by (1, 1), concatenated; batch norm.
    Odd sizes are padded with zeros: the shifted x has a row or a column too few.
    """

    def __init__(self, in_channels: int, out_channels: int, affine: bool) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv = nn.Conv2d(in_channels, half, 1, bias=False)
        self.conv_shifted = nn.Conv2d(in_channels, out_channels - half, 1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        # A 1x1 convolution of stride 2 reads every other pixel: taking these first is a third faster.
        even, odd = F.relu(x[:, :, ::2, ::2]), F.relu(x[:, :, 1::2, 1::2])
        height, width = x.shape[2:]
        if height % 2 or width % 2:
            odd = F.pad(odd, (0, width % 2, 0, height % 2))
        return self.bn(torch.cat([self.conv(even), self.conv_shifted(odd)], dim=1))


def _depthwise_separable(
    channels: int, kernel: int, stride: int, dilation: int, affine: bool
) -> nn.Sequential:
    """ReLU, depthwise convolution, pointwise convolution, batch norm."""
    padding = dilation * (kernel // 2)
    depthwise = nn.Conv2d(
        channels, channels, kernel, stride, padding, dilation=dilation, groups=channels, bias=False
    )
    pointwise = nn.Conv2d(channels, channels, 1, bias=False)
    return nn.Sequential(nn.ReLU(), depthwise, pointwise, nn.BatchNorm2d(channels, affine=affine))


def _sep_conv(kernel: int) -> Callable[[int, int, bool], nn.Module]:
    """The depth-wise separable convolution, applied twice, the stride on the first."""
    return lambda channels, stride, affine: nn.Sequential(
        _depthwise_separable(channels, kernel, stride, 1, affine),
        _depthwise_separable(channels, kernel, 1, 1, affine),
    )


def _dil_conv(kernel: int) -> Callable[[int, int, bool], nn.Module]:
    """The dilated convolution (dilation 2), depth-wise separable."""
    return lambda channels, stride, affine: _depthwise_separable(channels, kernel, stride, 2, affine)


def _pooled(pool: nn.Module, channels: int, affine: bool) -> nn.Module:
    return pool if affine else nn.Sequential(pool, nn.BatchNorm2d(channels, affine=False))


def _max_pool(channels: int, stride: int, affine: bool) -> nn.Module:
    return _pooled(nn.MaxPool2d(3, stride, padding=1), channels, affine)


def _avg_pool(channels: int, stride: int, affine: bool) -> nn.Module:
    return _pooled(nn.AvgPool2d(3, stride, padding=1, count_include_pad=False), channels, affine)


def _skip_connect(channels: int, stride: int, affine: bool) -> nn.Module:
    """Identity mapping; where the resolution halves, FactorizedReduce."""
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)


def _part_aware(channels: int, stride: int, affine: bool) -> nn.Module:
    """Sec. 3.3's module; where the resolution halves, its fusing convolution is a FactorizedReduce."""
    if stride == 2:
        return PartAware(channels, affine, lambda fused: FactorizedReduce(fused, channels, affine))
    return PartAware(
        channels,
        affine,
        lambda fused: nn.Sequential(
            nn.Conv2d(fused, channels, 1, bias=False), nn.BatchNorm2d(channels, affine=affine)
        ),
    )


_BUILDERS: dict[str, Callable[[int, int, bool], nn.Module]] = {
    "max_pool_3x3": _max_pool,
    "avg_pool_3x3": _avg_pool,
    "skip_connect": _skip_connect,
    "sep_conv_3x3": _sep_conv(3),
    "sep_conv_5x5": _sep_conv(5),
    "dil_conv_3x3": _dil_conv(3),
    "dil_conv_5x5": _dil_conv(5),
    "part_aware": _part_aware,
}


def build_operation(name: str, channels: int, stride: int, affine: bool) -> nn.Module:
    """One operation of O on ``channels`` channels at stride 1 or 2; ``none`` has no module (it adds zero)."""
    if name not in _BUILDERS:
        raise AutoReIDError(f"unknown operation {name!r}: one of {', '.join(_BUILDERS)}")
    return _BUILDERS[name](channels, stride, affine)
