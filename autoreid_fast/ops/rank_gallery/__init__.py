"""Ranks by counting: keys of the matches, then the gallery entries before each match.

The rank of a match is one plus the number of entries that the query ranks before it. Counts add up over
shards of a gallery, so nothing is sorted and no (Q, G) matrix exists. `evaluation.ranking` composes the ops:

1. `match_keys` gives the key of every query with each of its matches; `ops.keys` defines keys.
2. The keys, sorted within each query, are the thresholds of the next step.
3. `count_closer` counts the entries before each threshold; `count_closer_block` does the same where the keys
   of all pairs are given.

None of them is differentiable.
"""

from torch import Tensor

from autoreid_fast.ops.contract import run
from autoreid_fast.ops.csr import require_end
from autoreid_fast.ops.keys import require_finite
from autoreid_fast.ops.rank_gallery.spec import (
    COUNT_CLOSER,
    COUNT_CLOSER_ARGUMENTS,
    COUNT_CLOSER_BLOCK,
    COUNT_CLOSER_BLOCK_ARGUMENTS,
    MATCH_KEYS,
    MATCH_KEYS_ARGUMENTS,
)

__all__ = ["count_closer", "count_closer_block", "match_keys"]


def match_keys(
    query: Tensor, gallery: Tensor, offsets: Tensor, matches: Tensor, metric: str = "euclidean"
) -> Tensor:
    """Compute the keys of every query with each of its matches.

    Args:
        query: (Q, D) float32, float16 or bfloat16; any strides.
        gallery: (G, D) of the same dtype; any strides.
        offsets: (Q + 1,) int64; query i is matched by ``matches[offsets[i]:offsets[i + 1]]``.
        matches: (M,) int64 gallery indices.
        metric: `euclidean`, `sqeuclidean` or `cosine`.

    Returns:
        (M,) float32 keys in the order of ``matches``.

    Raises:
        AutoReIDError: shapes, dtypes or devices do not match, or features are not finite.

    Examples:
        >>> import torch
        >>> from autoreid_fast import ops
        >>> query, gallery = torch.tensor([[0.0], [5.0]]), torch.tensor([[1.0], [2.0], [3.0]])
        >>> ops.match_keys(query, gallery, torch.tensor([0, 2, 3]), torch.tensor([0, 2, 1]))
        tensor([1., 9., 9.])
    """
    MATCH_KEYS_ARGUMENTS.check(query=query, gallery=gallery, offsets=offsets, matches=matches, metric=metric)
    require_finite("match_keys", query=query, gallery=gallery)
    require_end("match_keys", "offsets", offsets, "matches", matches)
    keys: Tensor = run(MATCH_KEYS, query.detach(), gallery.detach(), offsets, matches, metric == "cosine")
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
    gallery_offset: int = 0,
    metric: str = "euclidean",
) -> Tensor:
    """Count the gallery entries that each query ranks before each of its thresholds.

    An entry is before a threshold if its key is smaller, or if it is equal and the entry's index is smaller.

    Args:
        query: (Q, D) float32, float16 or bfloat16; any strides.
        gallery: (G, D) of the same dtype, a gallery or a shard of one; any strides.
        valid: (G,) bool; no query ranks the entries that are False (junk).
        excluded_offsets: (Q + 1,) int64; query i does not rank the entries
            ``excluded[excluded_offsets[i]:excluded_offsets[i + 1]]``.
        excluded: (X,) int64 indices in this gallery, ascending within a query.
        offsets: (Q + 1,) int64; query i has the thresholds ``offsets[i]`` to ``offsets[i + 1]`` - 1.
        keys: (M,) float32 keys of the thresholds, ascending within a query.
        indices: (M,) int64 indices of the thresholds in the whole gallery, ascending among equal keys.
        gallery_offset: index of this gallery's first entry in the whole gallery.
        metric: the metric of the keys: `euclidean`, `sqeuclidean` or `cosine`.

    Returns:
        (M,) int64 counts. Those of the shards of a gallery add up.

    Raises:
        AutoReIDError: shapes, dtypes or devices do not match, or features are not finite.

    Examples:
        >>> import torch
        >>> from autoreid_fast import ops
        >>> query, gallery = torch.tensor([[0.0]]), torch.tensor([[1.0], [3.0], [2.0]])
        >>> valid, nothing = torch.tensor([True, True, True]), torch.tensor([], dtype=torch.int64)
        >>> threshold = torch.tensor([0, 1]), torch.tensor([9.0]), torch.tensor([1])  # entry 1, at 3 squared
        >>> ops.count_closer(query, gallery, valid, torch.tensor([0, 0]), nothing, *threshold)
        tensor([2])
    """
    COUNT_CLOSER_ARGUMENTS.check(
        query=query,
        gallery=gallery,
        valid=valid,
        excluded_offsets=excluded_offsets,
        excluded=excluded,
        offsets=offsets,
        keys=keys,
        indices=indices,
        gallery_offset=gallery_offset,
        metric=metric,
    )
    require_finite("count_closer", query=query, gallery=gallery)
    require_end("count_closer", "excluded_offsets", excluded_offsets, "excluded", excluded)
    require_end("count_closer", "offsets", offsets, "keys", keys)
    counts: Tensor = run(
        COUNT_CLOSER,
        query,
        gallery,
        valid,
        excluded_offsets,
        excluded,
        offsets,
        keys,
        indices,
        gallery_offset,
        metric == "cosine",
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
    gallery_offset: int = 0,
) -> Tensor:
    """Count as `count_closer` does, with the keys of every pair given.

    Args:
        block: (Q, G) float32 keys without NaN; any strides. The others are those of `count_closer`.
        valid: (G,) bool.
        excluded_offsets: (Q + 1,) int64.
        excluded: (X,) int64.
        offsets: (Q + 1,) int64.
        keys: (M,) float32.
        indices: (M,) int64.
        gallery_offset: index of the block's first column in the whole gallery.

    Returns:
        (M,) int64 counts.

    Raises:
        AutoReIDError: shapes, dtypes or devices do not match.

    Examples:
        >>> import torch
        >>> from autoreid_fast import ops
        >>> block, valid = torch.tensor([[1.0, 9.0, 4.0]]), torch.tensor([True, True, True])
        >>> nothing = torch.tensor([0, 0]), torch.tensor([], dtype=torch.int64)
        >>> threshold = torch.tensor([0, 1]), torch.tensor([9.0]), torch.tensor([1])
        >>> ops.count_closer_block(block, valid, *nothing, *threshold)
        tensor([2])
    """
    COUNT_CLOSER_BLOCK_ARGUMENTS.check(
        block=block,
        valid=valid,
        excluded_offsets=excluded_offsets,
        excluded=excluded,
        offsets=offsets,
        keys=keys,
        indices=indices,
        gallery_offset=gallery_offset,
    )
    require_end("count_closer_block", "excluded_offsets", excluded_offsets, "excluded", excluded)
    require_end("count_closer_block", "offsets", offsets, "keys", keys)
    counts: Tensor = run(
        COUNT_CLOSER_BLOCK,
        block,
        valid,
        excluded_offsets,
        excluded,
        offsets,
        keys,
        indices,
        gallery_offset,
    )
    return counts
