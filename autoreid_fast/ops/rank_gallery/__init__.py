"""Ranks by counting: keys of the matches, then the gallery entries before each match.

The rank of a match is one plus the number of entries that the query ranks before it. Counts add up over
shards of a gallery, so nothing is sorted and no (Q, G) matrix exists. `evaluation.ranking` composes the ops:

1. `match_keys` gives the key of every query with each of its matches; `ops.keys` defines keys.
2. The keys, sorted within each query, are the thresholds of the next step.
3. `count_closer` counts the entries before each threshold; `count_closer_block` does the same where the keys
   of all pairs are given.

None of them is differentiable.
"""

import torch
from torch import Tensor

from autoreid_fast.ops import contract
from autoreid_fast.ops.checks import require, require_total
from autoreid_fast.ops.keys import check_features
from autoreid_fast.ops.rank_gallery import reference


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
    cosine = check_features("match_keys", query, gallery, metric)
    _check_rows("match_keys", "offsets", offsets, "matches", matches, query)
    run = reference.match_keys if contract.reference_forced() else torch.ops.autoreid_fast.match_keys
    return run(query.detach(), gallery.detach(), offsets, matches, cosine)


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
    cosine = check_features("count_closer", query, gallery, metric)
    _check_thresholds(
        "count_closer", query, len(gallery), valid, excluded_offsets, excluded, offsets, keys, indices
    )
    run = reference.count_closer if contract.reference_forced() else torch.ops.autoreid_fast.count_closer
    return run(
        query, gallery, valid, excluded_offsets, excluded, offsets, keys, indices, gallery_offset, cosine
    )


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
    """
    require("count_closer_block: block", block, ("Q", "G"), torch.float32, block.device)
    _check_thresholds(
        "count_closer_block", block, block.shape[1], valid, excluded_offsets, excluded, offsets, keys, indices
    )
    run = (
        reference.count_closer_block
        if contract.reference_forced()
        else torch.ops.autoreid_fast.count_closer_block
    )
    return run(block, valid, excluded_offsets, excluded, offsets, keys, indices, gallery_offset)


def _check_thresholds(
    op: str,
    queries: Tensor,
    entries: int,
    valid: Tensor,
    excluded_offsets: Tensor,
    excluded: Tensor,
    offsets: Tensor,
    keys: Tensor,
    indices: Tensor,
) -> None:
    device = queries.device
    require(f"{op}: valid", valid, (entries,), torch.bool, device, "one per entry of gallery or block")
    _check_rows(op, "excluded_offsets", excluded_offsets, "excluded", excluded, queries)
    require(f"{op}: keys", keys, ("M",), torch.float32, device)
    require(f"{op}: indices", indices, (len(keys),), torch.int64, device, "one for each of keys")
    _check_rows(op, "offsets", offsets, "indices", indices, queries)


def _check_rows(op: str, name: str, offsets: Tensor, of: str, entries: Tensor, queries: Tensor) -> None:
    """Check (Q + 1,) ``offsets`` and the entries that they divide among the queries."""
    device = queries.device
    reason = "one more than the rows of query or block"
    require(f"{op}: {name}", offsets, (len(queries) + 1,), torch.int64, device, reason)
    require(f"{op}: {of}", entries, ("M",), torch.int64, device)
    require_total(f"{op}: {of}", offsets, entries)


def _fake_match_keys(
    query: Tensor, gallery: Tensor, offsets: Tensor, matches: Tensor, cosine: bool
) -> Tensor:
    return query.new_empty(matches.shape, dtype=torch.float32)


def _fake_count_closer(
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
    return indices.new_empty(indices.shape)


def _fake_count_closer_block(
    block: Tensor,
    valid: Tensor,
    excluded_offsets: Tensor,
    excluded: Tensor,
    offsets: Tensor,
    keys: Tensor,
    indices: Tensor,
    gallery_offset: int,
) -> Tensor:
    return indices.new_empty(indices.shape)


_THRESHOLDS = (
    "Tensor valid, Tensor excluded_offsets, Tensor excluded, Tensor offsets, Tensor keys, Tensor indices, "
    "int gallery_offset"
)
contract.define(
    "match_keys",
    "(Tensor query, Tensor gallery, Tensor offsets, Tensor matches, bool cosine) -> Tensor",
    reference.match_keys,
    _fake_match_keys,
)
contract.define(
    "count_closer",
    f"(Tensor query, Tensor gallery, {_THRESHOLDS}, bool cosine) -> Tensor",
    reference.count_closer,
    _fake_count_closer,
)
contract.define(
    "count_closer_block",
    f"(Tensor block, {_THRESHOLDS}) -> Tensor",
    reference.count_closer_block,
    _fake_count_closer_block,
)
