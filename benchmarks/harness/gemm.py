"""The bound of every op that compares all pairs: their dot products alone, block by block."""

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 256
"""Rows of the left side in one product."""


def mm(left: Tensor, right: Tensor) -> Tensor:
    """All dot products of the rows of (n, D) and (m, D) by ``torch.mm``; the last block of them."""
    block = left.new_empty(min(BLOCK, len(left)), len(right))
    for rows in left.split(BLOCK):
        torch.mm(rows, right.T, out=block[: len(rows)])
    return block


def linear(left: Tensor, right: Tensor) -> Tensor:
    """The same by ``functional.linear``, which takes another library on some machines."""
    for rows in left.split(BLOCK):
        block = functional.linear(rows, right)
    return block
