"""Candidate operations O of Sec. 3.1: (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride)).

``affine`` is False in the supernet, so that only alpha weighs the operations (as in DARTS [20]): no batch
norm learns a scale, and the pools are followed by a batch norm like the convolutions. In a derived network it
is True, and the pools have no batch norm. Convolutions have no bias, since a batch norm follows.
"""

from collections.abc import Callable

from torch import nn

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.operations.layers import DepthwiseSeparable, FactorizedReduce, PoolBN, SepConv
from autoreid_fast.nas.operations.part_aware import PartAware


def with_search_norm(operation: nn.Module, channels: int, affine: bool) -> nn.Module:
    """Add the batch norm that follows an operation without weights in a supernet (``affine`` False)."""
    return operation if affine else PoolBN(operation, channels)


def _max_pool(channels: int, stride: int, affine: bool) -> nn.Module:
    return with_search_norm(nn.MaxPool2d(3, stride, padding=1), channels, affine)


def _avg_pool(channels: int, stride: int, affine: bool) -> nn.Module:
    return with_search_norm(nn.AvgPool2d(3, stride, padding=1, count_include_pad=False), channels, affine)


def _skip_connect(channels: int, stride: int, affine: bool) -> nn.Module:
    """Identity at stride 1, FactorizedReduce at stride 2."""
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)


_BUILDERS: dict[str, Callable[[int, int, bool], nn.Module]] = {
    "max_pool_3x3": _max_pool,
    "avg_pool_3x3": _avg_pool,
    "skip_connect": _skip_connect,
    "sep_conv_3x3": lambda channels, stride, affine: SepConv(channels, 3, stride, affine),
    "sep_conv_5x5": lambda channels, stride, affine: SepConv(channels, 5, stride, affine),
    "dil_conv_3x3": lambda channels, stride, affine: DepthwiseSeparable(channels, 3, stride, 2, affine),
    "dil_conv_5x5": lambda channels, stride, affine: DepthwiseSeparable(channels, 5, stride, 2, affine),
    "part_aware": PartAware,
}


def build_operation(name: str, channels: int, stride: int, affine: bool) -> nn.Module:
    """Build an operation of O; ``none`` has no module, since it adds zero.

    Args:
        name: A key of the search spaces, such as ``"sep_conv_3x3"``.
        channels: C, channels of input and output.
        stride: 1 or 2.
        affine: Whether batch norms learn scale and shift: False in a supernet, True in a derived network.

    Raises:
        AutoReIDError: unknown name.

    Examples:
        >>> import torch
        >>> from autoreid_fast.nas import build_operation
        >>> operation = build_operation("sep_conv_3x3", channels=8, stride=2, affine=True)
        >>> operation(torch.randn(2, 8, 9, 5)).shape
        torch.Size([2, 8, 5, 3])
    """
    if name not in _BUILDERS:
        raise AutoReIDError(f"unknown operation {name!r}: use one of {', '.join(_BUILDERS)}")
    return _BUILDERS[name](channels, stride, affine)
