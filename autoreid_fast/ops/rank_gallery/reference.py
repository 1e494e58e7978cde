"""Ranks of every query's true matches in a gallery, by counting; `ops.rank_gallery` is the face.

The order compares float32 keys: the squared distance for `euclidean` and `sqeuclidean` (clamped at 0; a root
in float32 would merge distinct distances into ties), minus the cosine similarity for `cosine`. Equal keys are
ordered by gallery index. Here keys are computed in float64 and rounded once; the native kernels compute the
same definition by float32 fused multiply-adds, and wherever those are exact the two agree to the last rank.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError

Metric = Literal["euclidean", "sqeuclidean", "cosine"]

_BLOCK = 256  # queries compared at once; a key must come from the same block wherever it is computed


class GalleryRanks(NamedTuple):
    """Where each query's valid matches stand.

    Attributes:
        ranks: (M,) int64, the matches' ranks from 1 among the query's valid entries, ascending within
            a query.
        offsets: (Q + 1,) int64: query i owns ``ranks[offsets[i]:offsets[i + 1]]``.
        entries: (Q,) int64, how many valid gallery entries each query has.
    """

    ranks: Tensor
    offsets: Tensor
    entries: Tensor


def key_blocks(query: Tensor, gallery: Tensor, cosine: bool) -> Iterator[tuple[int, Tensor]]:
    """(first row, float32 keys of these rows and all of (G, D) ``gallery``), by blocks of (Q, D) ``query``.

    A zero vector has cosine similarity 0 with everything.
    """
    gallery = gallery.double()
    if cosine:
        gallery = torch.nn.functional.normalize(gallery)
    squares = gallery.square().sum(1)
    for start in range(0, len(query), _BLOCK):
        rows = query[start : start + _BLOCK].double()
        if cosine:
            yield start, (torch.nn.functional.normalize(rows) @ gallery.T).neg_().float()
        else:
            squared = rows.square().sum(1, keepdim=True) + squares - 2 * (rows @ gallery.T)
            yield start, squared.clamp_(min=0).float()


def match_keys(query: Tensor, gallery: Tensor, offsets: Tensor, matches: Tensor, cosine: bool) -> Tensor:
    """(M,) float32 keys of the pairs (i, j), j in ``matches[offsets[i]:offsets[i + 1]]``."""
    rows = row_of_each(offsets)
    keys = query.new_empty(len(matches), dtype=torch.float32)
    for start, block in key_blocks(query, gallery, cosine):
        first, last = offsets[start], offsets[start + len(block)]
        keys[first:last] = block[rows[first:last] - start, matches[first:last]]
    return keys


def count_closer(
    query: Tensor,
    gallery: Tensor,
    valid: Tensor,
    excluded_offsets: Tensor,
    excluded: Tensor,
    offsets: Tensor,
    keys: Tensor,
    indices: Tensor,
    gallery_offset: int,
    cosine: bool,
) -> Tensor:
    """(M,) int64: how many entries of this gallery each threshold's query finds before it.

    Args:
        query: (Q, D). gallery: (G, D), a whole gallery or a shard of one.
        valid: (G,) bool, False for entries that nobody ranks (junk).
        excluded_offsets: (Q + 1,) int64. excluded: (X,) int64: query i does not rank the entries
            ``excluded[excluded_offsets[i]:excluded_offsets[i + 1]]`` of this gallery, ascending.
        offsets: (Q + 1,) int64: query i owns the thresholds from ``offsets[i]`` to ``offsets[i + 1]``.
        keys: (M,) float32, indices: (M,) int64 gallery indices: the thresholds, ascending within a query.
        gallery_offset: index of this gallery's first entry, as `indices` count.
        cosine: whether keys are minus cosine similarities, not squared distances.
    """
    counts = torch.empty_like(indices)
    for start, block in key_blocks(query, gallery, cosine):
        stop = start + len(block)
        own, theirs = offsets[start : stop + 1], excluded_offsets[start : stop + 1]
        part, removed = slice(int(own[0]), int(own[-1])), slice(int(theirs[0]), int(theirs[-1]))
        counts[part] = count_closer_block(
            block,
            valid,
            theirs - theirs[0],
            excluded[removed],
            own - own[0],
            keys[part],
            indices[part],
            gallery_offset,
        )
    return counts


def count_closer_block(
    block: Tensor,
    valid: Tensor,
    excluded_offsets: Tensor,
    excluded: Tensor,
    offsets: Tensor,
    keys: Tensor,
    indices: Tensor,
    gallery_offset: int,
) -> Tensor:
    """`count_closer` with the keys of every pair given: (Q, G) float32 ``block``."""
    block = block.masked_fill(~valid, torch.inf)
    block[row_of_each(excluded_offsets), excluded] = torch.inf
    entry = torch.arange(block.shape[1], device=block.device) + gallery_offset
    counts = torch.empty_like(indices)
    bounds = offsets.tolist()
    for row, (first, last) in enumerate(pairwise(bounds)):
        for at in range(first, last, 64):  # thresholds compared at once
            part = slice(at, min(at + 64, last))
            key, index = keys[part, None], indices[part, None]
            closer = (block[row] < key) | ((block[row] == key) & (entry < index))
            counts[part] = closer.sum(1)
    return counts


def row_of_each(offsets: Tensor) -> Tensor:
    """(M,) int64: the row that owns each of the M entries that (Q + 1,) int64 ``offsets`` divide.

    Raises:
        AutoReIDError: another shape or dtype.
    """
    if offsets.ndim != 1 or len(offsets) == 0 or offsets.dtype != torch.int64:
        raise AutoReIDError(
            f"row_of_each: offsets are {tuple(offsets.shape)} {offsets.dtype}; expected (Q + 1,) torch.int64"
        )
    rows = torch.arange(len(offsets) - 1, device=offsets.device)
    return rows.repeat_interleave(offsets.diff())
