"""Rank a gallery that may be larger than the device, or shared by several processes, with one result."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from autoreid_fast.distributed.collectives import sum_over_processes
from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.ops.k_reciprocal import k_reciprocal_encode
from autoreid_fast.ops.rank_gallery import (
    Thresholds,
    count_closer,
    match_keys,
    order_thresholds,
    rank_distances,
    relevance,
)
from autoreid_fast.ops.rank_gallery.reference import GalleryRanks, Metric, row_of_each

ShowDone = Callable[[int, int], None]

QUERIES_AT_ONCE = 2048
RERANKED_BYTES = 1 << 26  # of one block of re-ranked distances


class Labels(NamedTuple):
    """Identities and cameras: (Q,) and (G,) int64; both cameras are None where they are not known."""

    query_pids: Tensor
    gallery_pids: Tensor
    query_cams: Tensor | None = None
    gallery_cams: Tensor | None = None

    def shard(self, start: int, stop: int) -> "Labels":
        """The same with the gallery entries from ``start`` to ``stop`` alone."""
        cams = self.gallery_cams
        return self._replace(
            gallery_pids=self.gallery_pids[start:stop],
            gallery_cams=None if cams is None else cams[start:stop],
        )

    def to(self, device: torch.device) -> "Labels":
        """The same on ``device``."""
        return Labels(*(None if labels is None else labels.to(device) for labels in self))  # type: ignore[arg-type]


def rank(
    query: Tensor,
    gallery: Tensor,
    labels: Labels,
    metric: Metric,
    device: torch.device,
    show_done: ShowDone | None = None,
) -> GalleryRanks:
    """Rank every query's matches; under torch.distributed the processes share the gallery.

    Each process reads its own slice of the gallery, in shards that fit ``device``: first the keys of the
    matches, which are summed over the processes, then the counts, likewise. The result is that of one process
    with the whole gallery, to the last rank, and every process has it.

    Args:
        query: (Q, D) features. gallery: (G, D), memory-mapped or not; only what is worked on is copied.
        labels: of all queries and of the whole gallery.
        metric: what to compare by.
        device: where to work.
        show_done: called with the steps done and the steps in all.
    """
    query, labels = query.to(device), labels.to(device)
    whole = relevance(*labels)
    shards = list(_shards(gallery, device))
    total, done = 2 * len(shards) * len(range(0, len(query), QUERIES_AT_ONCE)), 0

    def step() -> None:
        nonlocal done
        done += 1
        if show_done is not None:
            show_done(done, total)

    keys = torch.zeros(len(whole.matches), dtype=torch.float32, device=device)
    for start, stop in shards:
        local = relevance(*labels.shard(start, stop))
        features = gallery[start:stop].to(device)
        here = (whole.matches >= start) & (whole.matches < stop)
        blocks = []
        for rows in _query_blocks(len(query)):
            blocks.append(match_keys(query[rows], features, local.rows(rows.start, rows.stop), metric))
            step()
        keys[here] = torch.cat(blocks)
    sum_over_processes(keys)

    thresholds = order_thresholds(len(query), row_of_each(whole.match_offsets), keys, whole.matches)
    counts = torch.zeros(len(keys), dtype=torch.int64, device=device)
    for start, stop in shards:
        local = relevance(*labels.shard(start, stop))
        features = gallery[start:stop].to(device)
        for rows in _query_blocks(len(query)):
            own = slice(int(thresholds.offsets[rows.start]), int(thresholds.offsets[rows.stop]))
            counts[own] += count_closer(
                query[rows],
                features,
                local.rows(rows.start, rows.stop),
                _threshold_rows(thresholds, rows),
                metric,
                start,
            )
            step()
    sum_over_processes(counts)
    return GalleryRanks(counts + 1, thresholds.offsets, whole.entries)


def rank_reranked(
    query: Tensor,
    gallery: Tensor,
    labels: Labels,
    parameters: tuple[int, int, float],
    device: torch.device,
    show_done: ShowDone | None = None,
) -> GalleryRanks:
    """Rank by k-reciprocal distances (Zhong et al., CVPR 2017), block by block: never a full matrix.

    Args:
        query: (Q, D) features. gallery: (G, D).
        labels: of both.
        parameters: k1, k2 and lambda.
        device: where to work.
        show_done: called with the queries done and the queries in all.
    """
    found = relevance(*labels.to(device))
    encoding = k_reciprocal_encode(query.to(device), gallery.to(device), *parameters)
    rows = max(1, RERANKED_BYTES // (4 * len(gallery)))
    parts = []
    for start in range(0, len(query), rows):
        stop = min(start + rows, len(query))
        parts.append(rank_distances(encoding.block(start, stop), found.rows(start, stop)))
        if show_done is not None:
            show_done(stop, len(query))
    return GalleryRanks(torch.cat([part.ranks for part in parts]), found.match_offsets, found.entries)


def _threshold_rows(thresholds: Thresholds, rows: slice) -> Thresholds:
    """The thresholds of the queries ``rows`` alone."""
    offsets = thresholds.offsets[rows.start : rows.stop + 1]
    own = slice(int(offsets[0]), int(offsets[-1]))
    return Thresholds(offsets - offsets[0], thresholds.keys[own], thresholds.indices[own])


def _query_blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, QUERIES_AT_ONCE):
        yield slice(start, min(start + QUERIES_AT_ONCE, count))


def _shards(gallery: Tensor, device: torch.device) -> Iterator[tuple[int, int]]:
    """This process's slice of the gallery, in pieces of at most a quarter of a GPU's free memory."""
    own = current_shard().rows(len(gallery))
    start, end = own.start, own.stop
    rows = max(1, end - start)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        rows = max(1, min(rows, free // 4 // (gallery.shape[1] * gallery.element_size())))
    for first in range(start, end, rows):
        yield first, min(first + rows, end)
