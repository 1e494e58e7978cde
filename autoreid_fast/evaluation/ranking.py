"""Rank every query's matches, by features in shards that processes share, or by given distances."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from zlib import crc32

import torch
from torch import Tensor

from autoreid_fast import ops
from autoreid_fast.distributed.collectives import gather_from_processes, sum_over_processes
from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation.protocol import (
    GalleryRanks,
    Labels,
    Metric,
    Relevance,
    Thresholds,
    order_thresholds,
    relevance_of,
)
from autoreid_fast.ops.arguments import Arguments, TensorArgument
from autoreid_fast.ops.csr import row_indices

ShowDone = Callable[[int, int], None]
"""Called with the steps done and the total number of steps."""

QUERIES_AT_ONCE = 2048
MATCHES_AT_ONCE = 2**20
"""Matches of one group of queries, at tens of bytes per match; see `rank_in_groups`."""
ROWS_AT_ONCE = 8192  # of a checksum

DISTANCES = Arguments(
    "rank_distances",
    (
        TensorArgument("entries", ("Q",), (torch.int64,)),
        TensorArgument("valid", ("G",), (torch.bool,)),
        TensorArgument("block", ("Q", "G"), (torch.float32,)),
    ),
    may_be_zero=("Q", "G"),
)


def rank_gallery(
    query: Tensor,
    gallery: Tensor,
    labels: Labels,
    metric: Metric = "euclidean",
    device: torch.device | None = None,
    show_done: ShowDone | None = None,
) -> GalleryRanks:
    """Rank every query's matches by counting the entries before them; equal distances go by gallery index.

    Under torch.distributed the processes share the gallery: all pass the same arguments, and each reads its
    own slice, in shards that fit ``device``. The keys of the matches are summed over the processes, then the
    counts. Every process gets the ranks that one process computes from the whole gallery. Beyond the features
    and the matches, memory is bounded (tens of MB).

    Args:
        query: (Q, D) float32, float16 or bfloat16, computed in float32.
        gallery: (G, D) of the same dtype; may be memory-mapped: only one shard at a time is copied.
        labels: labels of all queries and the whole gallery.
        metric: distance to rank by.
        device: where to compute; the device of ``query`` by default.
        show_done: called with the steps done and the total number of steps.

    Raises:
        AutoReIDError: shapes, dtypes or devices do not match, features are not finite, or the processes of
            the group have different ones.

    Examples:
        >>> import torch
        >>> from autoreid_fast.evaluation import Labels, rank_gallery
        >>> query, gallery = torch.tensor([[0.0]]), torch.tensor([[3.0], [1.0], [2.0]])
        >>> labels = Labels(torch.tensor([7]), torch.tensor([7, 4, 7]))
        >>> rank_gallery(query, gallery, labels).ranks
        tensor([2, 3])
    """
    if current_shard().processes > 1:
        _require_same_in_processes(query, gallery, labels, metric)
    return _ranked(query, gallery, labels, metric, device, show_done)


def rank_in_groups(
    query: Tensor,
    gallery: Tensor,
    labels: Labels,
    metric: Metric,
    device: torch.device,
    show_done: ShowDone | None,
) -> Iterator[GalleryRanks]:
    """Rank as `rank_gallery`, some queries at a time, so that the matches fit in memory.

    Where few people have many images each, a good part of all pairs are matches. Each group of queries is a
    pass over the gallery; usually there is only one.
    """
    if current_shard().processes > 1:
        _require_same_in_processes(query, gallery, labels, metric)
    groups = _query_groups(labels)
    for number, queries in enumerate(groups):
        show = show_done and _part_of(show_done, number, len(groups))
        yield _ranked(query[queries], gallery, labels.of_queries(queries), metric, device, show)


def _query_groups(labels: Labels) -> list[slice]:
    """Consecutive queries with about `MATCHES_AT_ONCE` gallery entries of their identities in all."""
    pids, wanted = labels.gallery_pids.sort().values, labels.query_pids.contiguous()
    counts = torch.searchsorted(pids, wanted, right=True) - torch.searchsorted(pids, wanted)
    numbers = counts.cumsum(0) // MATCHES_AT_ONCE
    stops = numbers.unique_consecutive(return_counts=True)[1].cumsum(0).tolist()
    return [slice(start, stop) for start, stop in pairwise([0, *stops])]


def _part_of(show_done: ShowDone, number: int, parts: int) -> ShowDone:
    """Show the progress of one part as that of the whole."""
    return lambda done, total: show_done(number * total + done, parts * total)


def _ranked(
    query: Tensor,
    gallery: Tensor,
    labels: Labels,
    metric: Metric,
    device: torch.device | None,
    show_done: ShowDone | None,
) -> GalleryRanks:
    device = query.device if device is None else device
    labels = labels.to(device)
    relevance = relevance_of(labels)
    shards = _Shards(query.to(device), gallery, labels, show_done)

    keys = torch.zeros(len(relevance.matches), dtype=torch.float32, device=device)
    for block in shards.blocks():
        matches = _entries(relevance.match_offsets, block.queries)
        in_shard = (block.start <= relevance.matches[matches]) & (relevance.matches[matches] < block.stop)
        keys[matches][in_shard] = block.match_keys(metric)
    sum_over_processes(keys)

    rows = row_indices(relevance.match_offsets)
    thresholds = order_thresholds(len(query), rows, keys, relevance.matches)
    counts = torch.zeros(len(keys), dtype=torch.int64, device=device)
    for block in shards.blocks():
        counts[_entries(thresholds.offsets, block.queries)] += block.count_closer(thresholds, metric)
    sum_over_processes(counts)
    return GalleryRanks(counts + 1, thresholds.offsets, relevance.entries)


def rank_distances(block: Tensor, relevance: Relevance) -> GalleryRanks:
    """Rank every query's matches by given distances; equal ones go by gallery index.

    Args:
        block: (Q, G) float32 finite distances of some queries to the whole gallery.
        relevance: relevance of these queries (`Relevance.rows`).

    Raises:
        AutoReIDError: shapes, dtypes or devices do not match.
    """
    DISTANCES.check(entries=relevance.entries, valid=relevance.valid, block=block)
    rows = row_indices(relevance.match_offsets)
    keys = block[rows, relevance.matches]
    thresholds = order_thresholds(len(block), rows, keys, relevance.matches)
    counts = ops.count_closer_block(
        block,
        relevance.valid,
        relevance.excluded_offsets,
        relevance.excluded,
        thresholds.offsets,
        thresholds.keys,
        thresholds.indices,
    )
    return GalleryRanks(counts + 1, thresholds.offsets, relevance.entries)


def _require_same_in_processes(query: Tensor, gallery: Tensor, labels: Labels, metric: Metric) -> None:
    """Refuse features of different networks: the processes would sum ranks of different galleries."""
    tensors = (query, gallery, *(tensor for tensor in labels if tensor is not None))
    arguments = metric, *((tuple(tensor.shape), tensor.dtype, _checksum(tensor)) for tensor in tensors)
    if len(set(gather_from_processes(arguments))) > 1:
        raise AutoReIDError(
            "rank_gallery: the processes of the torch.distributed group share the ranking, but differ in "
            "features, labels or metric: pass the same in each, or rank before init_process_group"
        )


def _checksum(tensor: Tensor) -> int:
    """CRC-32 of the values, in their order."""
    checksum = 0
    for rows in tensor.split(ROWS_AT_ONCE):
        checksum = crc32(rows.cpu().contiguous().view(torch.uint8).numpy(), checksum)
    return checksum


@dataclass(frozen=True)
class _Block:
    """Some queries and one shard of the gallery, on the device."""

    queries: slice
    start: int  # index of the shard's first entry in the whole gallery
    stop: int
    query: Tensor
    gallery: Tensor
    relevance: Relevance  # of these queries in this shard

    def match_keys(self, metric: Metric) -> Tensor:
        offsets, matches = self.relevance.match_offsets, self.relevance.matches
        return ops.match_keys(self.query, self.gallery, offsets, matches, metric)

    def count_closer(self, thresholds: Thresholds, metric: Metric) -> Tensor:
        """Counts for the thresholds of these queries; ``thresholds`` are those of all queries."""
        offsets, keys, indices = thresholds.rows(self.queries.start, self.queries.stop)
        return ops.count_closer(
            self.query,
            self.gallery,
            self.relevance.valid,
            self.relevance.excluded_offsets,
            self.relevance.excluded,
            offsets,
            keys,
            indices,
            self.start,
            metric,
        )


class _Shards:
    """This process's slice of the gallery, shard by shard against blocks of queries, in two passes."""

    def __init__(self, query: Tensor, gallery: Tensor, labels: Labels, show_done: ShowDone | None) -> None:
        self._query, self._gallery, self._labels = query, gallery, labels
        self._show_done = show_done
        self._shards = list(_shards(gallery, query.device))
        self._queries = list(_query_blocks(len(query)))
        self._done = 0

    def blocks(self) -> Iterator[_Block]:
        """One pass over all pairs of shards and query blocks."""
        total = 2 * len(self._shards) * len(self._queries)
        for start, stop in self._shards:
            gallery = self._gallery[start:stop].to(self._query.device)
            relevance = relevance_of(self._labels.shard(start, stop))
            for queries in self._queries:
                rows = relevance.rows(queries.start, queries.stop)
                yield _Block(queries, start, stop, self._query[queries], gallery, rows)
                self._done += 1
                if self._show_done is not None:
                    self._show_done(self._done, total)


def _entries(offsets: Tensor, queries: slice) -> slice:
    """Entries of these queries in the list that ``offsets`` divides."""
    return slice(int(offsets[queries.start]), int(offsets[queries.stop]))


def _query_blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, QUERIES_AT_ONCE):
        yield slice(start, min(start + QUERIES_AT_ONCE, count))


def _shards(gallery: Tensor, device: torch.device) -> Iterator[tuple[int, int]]:
    """This process's slice of the gallery, in pieces of at most a quarter of a GPU's free memory."""
    process_slice = current_shard().rows(len(gallery))
    rows = max(1, process_slice.stop - process_slice.start)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        rows = max(1, min(rows, free // 4 // (gallery.shape[1] * gallery.element_size())))
    for first in range(process_slice.start, process_slice.stop, rows):
        yield first, min(first + rows, process_slice.stop)
