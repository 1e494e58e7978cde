"""Ranks of every query's true matches in a gallery, by counting: no sort of the gallery, no full matrix.

`rank_gallery` is the whole of it. Over a gallery split in shards it is, shard by shard:

    shard = relevance(query_pids, gallery_pids, query_cams, gallery_cams)       # this shard's labels
    keys = match_keys(query, gallery, shard)                                    # this shard's features
    ... gather row_of_each(shard.match_offsets), keys and shard.matches + gallery_offset of all shards ...
    thresholds = order_thresholds(len(query), rows, keys, indices)
    counts = count_closer(query, gallery, shard, thresholds, gallery_offset=gallery_offset)
    ... add up counts, and shard.entries, over all shards ...
    GalleryRanks(counts + 1, thresholds.offsets, entries)

Where the distances come from elsewhere, `rank_distances` ranks a finished block of them.

A key is the float32 that the order compares: the squared distance for `euclidean` and `sqeuclidean`, minus
the cosine similarity for `cosine`. The native kernels compute it from one chain of fused multiply-adds a
pair, so it depends on the two vectors alone: not on block, shard, thread count, instruction set or device,
and equal vectors tie exactly. Nothing here is differentiable.
"""

from typing import NamedTuple, get_args

import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops import contract
from autoreid_fast.ops.checks import require, require_total
from autoreid_fast.ops.rank_gallery import reference as twin
from autoreid_fast.ops.rank_gallery.reference import GalleryRanks, Metric, row_of_each

_LARGEST_NORM = 9e18  # its square, four times over, is still a float32


class Relevance(NamedTuple):
    """What the protocol makes of a gallery (or of a shard of one) for every query.

    Attributes:
        match_offsets: (Q + 1,) int64. matches: (M,) int64: query i is matched by the gallery entries
            ``matches[match_offsets[i]:match_offsets[i + 1]]``, ascending.
        excluded_offsets: (Q + 1,) int64. excluded: (X,) int64: the entries of the query's own identity and
            camera, likewise.
        valid: (G,) bool, False for junk.
        entries: (Q,) int64, how many entries each query ranks.
    """

    match_offsets: Tensor
    matches: Tensor
    excluded_offsets: Tensor
    excluded: Tensor
    valid: Tensor
    entries: Tensor

    def rows(self, start: int, stop: int) -> "Relevance":
        """The same for the queries from ``start`` to ``stop`` alone."""
        match_offsets, matches = _slice_rows(self.match_offsets, self.matches, start, stop)
        excluded_offsets, excluded = _slice_rows(self.excluded_offsets, self.excluded, start, stop)
        entries = self.entries[start:stop]
        return Relevance(match_offsets, matches, excluded_offsets, excluded, self.valid, entries)


class Thresholds(NamedTuple):
    """The matches of every query in the order of the ranking: what entries are counted before.

    Attributes:
        offsets: (Q + 1,) int64: query i owns the entries from ``offsets[i]`` to ``offsets[i + 1]``.
        keys: (M,) float32, ascending within a query.
        indices: (M,) int64, their gallery indices, ascending among equal keys.
    """

    offsets: Tensor
    keys: Tensor
    indices: Tensor


def relevance(
    query_pids: Tensor,
    gallery_pids: Tensor,
    query_cams: Tensor | None = None,
    gallery_cams: Tensor | None = None,
) -> Relevance:
    """Apply the Market-1501 protocol (Zheng et al. 2015) to the labels.

    Gallery entries of pid -1 (junk) are nobody's, and, where cameras are given, those of the query's own
    identity and camera are not the query's; other entries of its identity are its matches.

    Args:
        query_pids: (Q,) int64. gallery_pids: (G,) int64; 0 marks a distractor, -1 junk.
        query_cams: (Q,) int64 or None. gallery_cams: (G,) int64 or None; both or neither.

    Raises:
        AutoReIDError: shapes, dtypes or devices that do not fit.
    """
    if (query_cams is None) != (gallery_cams is None):
        raise AutoReIDError("query_cams and gallery_cams: give both or neither")
    device = query_pids.device
    require("query_pids", query_pids, ("Q",), torch.int64, device)
    require("gallery_pids", gallery_pids, ("G",), torch.int64, device, "that of query_pids")
    valid = gallery_pids != -1
    # Same identity: a run of the sorted gallery. The sort is stable, so a run has ascending indices.
    pids, order = gallery_pids.sort(stable=True)
    wanted = query_pids.contiguous()
    first = torch.searchsorted(pids, wanted)
    lengths = torch.searchsorted(pids, wanted, right=True) - first
    lengths = torch.where(query_pids == -1, 0, lengths)
    starts = _offsets(lengths)
    rows = row_of_each(starts)
    columns = order[torch.arange(len(rows), device=device) + (first - starts[:-1])[rows]]
    if query_cams is None or gallery_cams is None:
        excluded = torch.zeros_like(rows, dtype=torch.bool)
    else:
        _check_labels(query_cams, "query_cams", ("query_pids", query_pids))
        _check_labels(gallery_cams, "gallery_cams", ("gallery_pids", gallery_pids))
        excluded = query_cams[rows] == gallery_cams[columns]
    num_excluded = torch.bincount(rows[excluded], minlength=len(query_pids))
    return Relevance(
        match_offsets=_offsets(lengths - num_excluded),
        matches=columns[~excluded],
        excluded_offsets=_offsets(num_excluded),
        excluded=columns[excluded],
        valid=valid,
        entries=valid.sum() - num_excluded,
    )


def match_keys(query: Tensor, gallery: Tensor, shard: Relevance, metric: Metric = "euclidean") -> Tensor:
    """(M,) float32 keys of every query with each of its matches, in the order of ``shard.matches``.

    Args:
        query: (Q, D) float32, float16 or bfloat16. gallery: (G, D) likewise; any strides.
        shard: of these queries and this gallery.
        metric: `euclidean`, `sqeuclidean` or `cosine`.

    Raises:
        AutoReIDError: shapes or dtypes that do not fit, features that are not finite.
    """
    cosine = check_features("match_keys", query, gallery, metric)
    _check_relevance("match_keys", shard, query, ("query and gallery", len(gallery)))
    run = twin.match_keys if contract.reference_forced() else torch.ops.autoreid_fast.match_keys
    return run(query.detach(), gallery.detach(), shard.match_offsets, shard.matches, cosine)


def order_thresholds(num_query: int, rows: Tensor, keys: Tensor, indices: Tensor) -> Thresholds:
    """The matches of all shards, in any order, as thresholds.

    Args:
        num_query: Q.
        rows: (M,) int64, the query of each match. keys: (M,) float32, its key. indices: (M,) int64, its
            index in the whole gallery.

    Raises:
        AutoReIDError: shapes, dtypes or devices that do not fit.
    """
    device = rows.device
    require("order_thresholds: rows", rows, ("M",), torch.int64, device)
    require("order_thresholds: keys", keys, (len(rows),), torch.float32, device, "one for each of rows")
    require("order_thresholds: indices", indices, (len(rows),), torch.int64, device, "one for each of rows")
    order = indices.argsort(stable=True)
    order = order[keys[order].argsort(stable=True)]
    order = order[rows[order].argsort(stable=True)]
    return Thresholds(_offsets(torch.bincount(rows, minlength=num_query)), keys[order], indices[order])


def count_closer(
    query: Tensor,
    gallery: Tensor,
    shard: Relevance,
    thresholds: Thresholds,
    metric: Metric = "euclidean",
    gallery_offset: int = 0,
) -> Tensor:
    """(M,) int64: how many entries of this shard stand before each threshold; they add up over shards.

    Args:
        query: (Q, D) float32, float16 or bfloat16. gallery: (G, D) likewise; any strides.
        shard: of these queries and this gallery.
        thresholds: the matches of all shards.
        metric: as `match_keys` had it.
        gallery_offset: index of this shard's first entry in the whole gallery.

    Raises:
        AutoReIDError: shapes or dtypes that do not fit, features that are not finite.
    """
    cosine = check_features("count_closer", query, gallery, metric)
    _check_relevance("count_closer", shard, query, ("query and gallery", len(gallery)))
    _check_thresholds("count_closer", thresholds, query)
    run = twin.count_closer if contract.reference_forced() else torch.ops.autoreid_fast.count_closer
    return run(query, gallery, *_protocol(shard), *thresholds, gallery_offset, cosine)


def count_closer_block(
    block: Tensor, shard: Relevance, thresholds: Thresholds, gallery_offset: int = 0
) -> Tensor:
    """`count_closer` where the keys of every pair are given: (Q, G) float32 ``block``, rows adjacent or not.

    Raises:
        AutoReIDError: shapes or dtypes that do not fit.
    """
    _check_block("count_closer_block", block)
    _check_relevance("count_closer_block", shard, block, ("block", block.shape[1]))
    _check_thresholds("count_closer_block", thresholds, block)
    run = (
        twin.count_closer_block if contract.reference_forced() else torch.ops.autoreid_fast.count_closer_block
    )
    return run(block, *_protocol(shard), *thresholds, gallery_offset)


def rank_gallery(
    query: Tensor,
    gallery: Tensor,
    query_pids: Tensor,
    gallery_pids: Tensor,
    query_cams: Tensor | None = None,
    gallery_cams: Tensor | None = None,
    metric: Metric = "euclidean",
) -> GalleryRanks:
    """Rank every query's matches under the Market-1501 protocol; equal distances go by gallery index.

    Memory beyond the features is bounded (tens of MB), plus what the matches themselves take.

    Args:
        query: (Q, D) float32, float16 or bfloat16 (float32 inside). gallery: (G, D) likewise; any strides.
        query_pids: (Q,) int64. gallery_pids: (G,) int64; 0 marks a distractor, -1 junk.
        query_cams: (Q,) int64 or None. gallery_cams: (G,) int64 or None; both or neither.
        metric: `euclidean`, `sqeuclidean` or `cosine`.

    Raises:
        AutoReIDError: shapes, dtypes or devices that do not fit, features that are not finite.
    """
    check_features("rank_gallery", query, gallery, metric)
    _check_labels(query_pids, "query_pids", ("query", query))
    _check_labels(gallery_pids, "gallery_pids", ("gallery", gallery))
    found = relevance(query_pids, gallery_pids, query_cams, gallery_cams)
    keys = match_keys(query, gallery, found, metric)
    thresholds = order_thresholds(len(query), row_of_each(found.match_offsets), keys, found.matches)
    counts = count_closer(query, gallery, found, thresholds, metric)
    return GalleryRanks(counts + 1, thresholds.offsets, found.entries)


def rank_distances(block: Tensor, found: Relevance) -> GalleryRanks:
    """Rank the matches by given distances: (Q, G) float32 ``block`` of these queries and the whole gallery.

    Args:
        block: finite distances; any that compare as the ranking should.
        found: `relevance` of these queries (`Relevance.rows` cuts it from that of all).

    Raises:
        AutoReIDError: shapes or dtypes that do not fit.
    """
    _check_block("rank_distances", block)
    _check_relevance("rank_distances", found, block, ("block", block.shape[1]))
    rows = row_of_each(found.match_offsets)
    thresholds = order_thresholds(len(block), rows, block[rows, found.matches], found.matches)
    counts = count_closer_block(block, found, thresholds)
    return GalleryRanks(counts + 1, thresholds.offsets, found.entries)


def check_features(op: str, query: Tensor, gallery: Tensor, metric: str) -> bool:
    """Whether the metric's keys are cosine similarities; the features are checked on the way.

    Raises:
        AutoReIDError: shapes, dtypes or devices that do not fit, an unknown metric, features that are not
            finite or too large to be squared.
    """
    if metric not in get_args(Metric):
        raise AutoReIDError(f"{op}: metric is {metric!r}; it is one of {', '.join(get_args(Metric))}")
    for features, name in ((query, "query"), (gallery, "gallery")):
        if features.ndim != 2 or features.shape[1] == 0:
            raise AutoReIDError(f"{op}: {name} has shape {tuple(features.shape)}; expected (N, D), D >= 1")
        if features.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise AutoReIDError(
                f"{op}: {name} is {features.dtype}; not float32, float16 or bfloat16: call {name}.float()"
            )
    if query.shape[1] != gallery.shape[1]:
        raise AutoReIDError(f"{op}: query has {query.shape[1]} columns and gallery {gallery.shape[1]}")
    if query.dtype != gallery.dtype:
        raise AutoReIDError(f"{op}: query is {query.dtype} and gallery {gallery.dtype}; cast one")
    if query.device != gallery.device:
        raise AutoReIDError(f"{op}: query is on {query.device} and gallery on {gallery.device}")
    if not torch.compiler.is_compiling():
        for features, name in ((query, "query"), (gallery, "gallery")):
            norms = torch.linalg.vector_norm(features, dim=1, dtype=torch.float32)
            wrong = ~(norms < _LARGEST_NORM)  # NaN is wrong, too
            if wrong.any():
                row = int(wrong.nonzero()[0])
                raise AutoReIDError(
                    f"{op}: {name} has NaN, infinite or too large values, first in row {row}: "
                    "extract the features again"
                )
    return metric == "cosine"


def _protocol(shard: Relevance) -> tuple[Tensor, Tensor, Tensor]:
    return shard.valid, shard.excluded_offsets, shard.excluded


def _offsets(lengths: Tensor) -> Tensor:
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0))


def _slice_rows(offsets: Tensor, entries: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
    offsets = offsets[start : stop + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    return offsets - first, entries[first:last]


def _check_labels(labels: Tensor, name: str, of: tuple[str, Tensor]) -> None:
    """``of``: an argument with a row for each label, on their device."""
    other, rows = of
    require(name, labels, (len(rows),), torch.int64, rows.device, f"one for each row of {other}")


def _check_block(op: str, block: Tensor) -> None:
    require(f"{op}: block", block, ("Q", "G"), torch.float32, block.device)


def _check_relevance(op: str, shard: Relevance, queries: Tensor, gallery: tuple[str, int]) -> None:
    """``queries``: one row a query; ``gallery``: the argument that has the gallery, and its size."""
    name, entries = gallery
    count, device = len(queries), queries.device
    reason = f"for {count} queries and {entries} gallery entries in {name}"
    for field, shape, dtype in (
        ("entries", (count,), torch.int64),
        ("valid", (entries,), torch.bool),
        ("match_offsets", (count + 1,), torch.int64),
        ("matches", ("M",), torch.int64),
        ("excluded_offsets", (count + 1,), torch.int64),
        ("excluded", ("X",), torch.int64),
    ):
        require(f"{op}: relevance.{field}", getattr(shard, field), shape, dtype, device, reason)
    require_total(f"{op}: relevance.matches", shard.match_offsets, shard.matches)
    require_total(f"{op}: relevance.excluded", shard.excluded_offsets, shard.excluded)


def _check_thresholds(op: str, thresholds: Thresholds, queries: Tensor) -> None:
    count, device = len(queries), queries.device
    offsets, keys, indices = thresholds
    require(f"{op}: thresholds.offsets", offsets, (count + 1,), torch.int64, device, f"for {count} queries")
    require(f"{op}: thresholds.keys", keys, ("M",), torch.float32, device)
    require(f"{op}: thresholds.indices", indices, (len(keys),), torch.int64, device, "as keys")
    require_total(f"{op}: thresholds.keys", offsets, keys)


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
    twin.match_keys,
    _fake_match_keys,
)
contract.define(
    "count_closer",
    f"(Tensor query, Tensor gallery, {_THRESHOLDS}, bool cosine) -> Tensor",
    twin.count_closer,
    _fake_count_closer,
)
contract.define(
    "count_closer_block",
    f"(Tensor block, {_THRESHOLDS}) -> Tensor",
    twin.count_closer_block,
    _fake_count_closer_block,
)
