"""Strides as torch itself gives them, for its operations that go wrong on others."""

import torch
from torch import Tensor


def canonical_strides(x: Tensor) -> Tensor:
    """x (N, C, ...), a view with the strides of channels_last where x lies so but says it otherwise.

    The stride of a dimension of size 1 may be any number: (1, 2, 1, 2) with strides (4, 1, 2, 2) lies as
    channels last, but torch's batch norm on the CPU (2.13) then reads x in one layout and its gradient in the
    other: the gradient of x is wrong, without a word. `transpose` and `permute` make such of narrow tensors.
    """
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim)
    if last is None or x.is_contiguous() or not x.is_contiguous(memory_format=last):
        return x
    pixels = x.movedim(1, -1)
    return pixels.view(-1).view(pixels.shape).movedim(-1, 1)
