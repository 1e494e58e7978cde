"""Reference of `ops.match_keys`, `ops.count_closer` and `ops.count_closer_block` in plain PyTorch.

Keys are computed in float64 and rounded once (`ops.keys`). Wherever the float32 arithmetic of the native
kernels is exact, both give the same counts.
"""

from itertools import pairwise

import torch
from torch import Tensor

from autoreid_fast.ops.csr import row_indices, slice_rows
from autoreid_fast.ops.keys import key_blocks

_THRESHOLDS_AT_ONCE = 64


def match_keys(query: Tensor, gallery: Tensor, offsets: Tensor, matches: Tensor, cosine: bool) -> Tensor:
    """(M,) float32 keys of the pairs (i, j), j in ``matches[offsets[i]:offsets[i + 1]]``."""
    rows = row_indices(offsets)
    keys = query.new_empty(len(matches), dtype=torch.float32)
    for start, block in key_blocks(query, gallery, cosine):
        first, last = offsets[start], offsets[start + len(block)]
        keys[first:last] = block[rows[first:last] - start, matches[first:last]]
    return keys


def count_closer(
    query: Tensor,  # (Q, D)
    gallery: Tensor,  # (G, D)
    valid: Tensor,  # (G,) bool
    excluded_offsets: Tensor,  # (Q + 1,) int64
    excluded: Tensor,  # (X,) int64
    offsets: Tensor,  # (Q + 1,) int64
    keys: Tensor,  # (M,) float32
    indices: Tensor,  # (M,) int64
    gallery_offset: int,
    cosine: bool,
) -> Tensor:
    """(M,) int64 counts of the entries before each threshold, block by block."""
    counts = torch.empty_like(indices)
    for start, block in key_blocks(query, gallery, cosine):
        stop = start + len(block)
        part = slice(int(offsets[start]), int(offsets[stop]))
        block_excluded_offsets, block_excluded = slice_rows(excluded_offsets, excluded, start, stop)
        counts[part] = count_closer_block(
            block,
            valid,
            block_excluded_offsets,
            block_excluded,
            offsets[start : stop + 1] - offsets[start],
            keys[part],
            indices[part],
            gallery_offset,
        )
    return counts


def count_closer_block(
    block: Tensor,  # (Q, G) float32
    valid: Tensor,  # (G,) bool
    excluded_offsets: Tensor,  # (Q + 1,) int64
    excluded: Tensor,  # (X,) int64
    offsets: Tensor,  # (Q + 1,) int64
    keys: Tensor,  # (M,) float32
    indices: Tensor,  # (M,) int64
    gallery_offset: int,
) -> Tensor:
    """(M,) int64 counts of the entries before each threshold, by the keys of every pair."""
    block = block.masked_fill(~valid, torch.inf)
    block[row_indices(excluded_offsets), excluded] = torch.inf
    entries = torch.arange(block.shape[1], device=block.device) + gallery_offset
    counts = torch.empty_like(indices)
    for row, (first, last) in enumerate(pairwise(offsets.tolist())):
        for start in range(first, last, _THRESHOLDS_AT_ONCE):
            part = slice(start, min(start + _THRESHOLDS_AT_ONCE, last))
            key, index = keys[part, None], indices[part, None]
            closer = (block[row] < key) | ((block[row] == key) & (entries < index))
            counts[part] = closer.sum(1)
    return counts
