"""Strides in the form that torch itself produces, for operations that go wrong on others."""

import torch
from torch import Tensor


def canonical_strides(x: Tensor) -> Tensor:
    """View x (N, C, ...) with the strides of channels_last if it lies in memory that way.

    The stride of a dimension of size 1 may be any number: (1, 2, 1, 2) with strides (4, 1, 2, 2) is
    channels_last in memory, but torch's batch norm on the CPU (2.13) then reads x in one layout and its
    gradient in the other, and the gradient of x is silently wrong. `transpose` and `permute` of narrow
    tensors produce such strides.
    """
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim)
    if last is None or not only_channels_last(x, last):
        return x
    pixels = x.movedim(1, -1)
    return pixels.view(-1).view(pixels.shape).movedim(-1, 1)


def only_channels_last(x: Tensor, memory_format: torch.memory_format = torch.channels_last) -> bool:
    """Whether x lies in memory with its channels last, and not contiguously as well.

    False inside `torch.vmap`, whose tensors have no memory format.
    """
    if x.is_contiguous() or torch._C._functorch.is_batchedtensor(x):
        return False
    return x.is_contiguous(memory_format=memory_format)
