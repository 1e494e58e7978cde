"""Dot products of all pairs, block by block: the bound of every op that compares all pairs."""

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 256
"""Rows of the left side per product."""


def mm(left: Tensor, right: Tensor) -> Tensor:
    """All dot products of the rows of (n, D) and (m, D) by ``torch.mm``. Returns the last block."""
    block = left.new_empty(min(BLOCK, len(left)), len(right))
    for rows in left.split(BLOCK):
        torch.mm(rows, right.T, out=block[: len(rows)])
    return block


def linear(left: Tensor, right: Tensor) -> Tensor:
    """The same by ``functional.linear``, which uses another library on some machines."""
    for rows in left.split(BLOCK):
        block = functional.linear(rows, right)
    return block
