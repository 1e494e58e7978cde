"""Registry of candidate operations: the names that search spaces and genotypes use."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from autoreid_fast.registry import Registry

if TYPE_CHECKING:
    from torch import nn

OPERATIONS: Registry[Callable[..., Any]] = Registry(
    "operation", builtin="autoreid_fast.nas.operations.candidates"
)
register_operation = OPERATIONS.register


def build_operation(name: str, channels: int, stride: int, affine: bool) -> "nn.Module":
    """Build an operation of O; ``none`` has no module, since it adds zero.

    Args:
        name: Registered name, such as ``"sep_conv_3x3"``.
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
    operation: nn.Module = OPERATIONS[name].build(channels, stride, affine)
    return operation
