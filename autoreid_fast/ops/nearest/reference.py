"""Reference of `ops.nearest` and `ops.nearest_block` in plain PyTorch."""

import torch
from torch import Tensor

from autoreid_fast.ops.keys import key_blocks


def nearest(query: Tensor, gallery: Tensor, k: int, cosine: bool) -> tuple[Tensor, Tensor]:
    """The k smallest keys (`ops.keys`) of every query, (Q, k) float32, and their gallery indices, int64.

    Ascending by key; equal keys by index.
    """
    keys = query.new_empty((len(query), k), dtype=torch.float32)
    indices = query.new_empty((len(query), k), dtype=torch.int64)
    for start, block in key_blocks(query, gallery, cosine):
        rows = slice(start, start + len(block))
        keys[rows], indices[rows] = nearest_block(block, k)
    return keys, indices


def nearest_block(block: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest entries of every row of (Q, G) float32 ``block``, ascending, and their columns."""
    keys, indices = block.sort(dim=1, stable=True)
    return keys[:, :k].contiguous(), indices[:, :k].contiguous()
