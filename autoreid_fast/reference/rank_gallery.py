"""Ranks of every query's true matches in a gallery, by sorting: the plain twin."""

from typing import Literal, NamedTuple

import torch

Metric = Literal["euclidean", "sqeuclidean", "cosine"]


class GalleryRanks(NamedTuple):
    """Where each query's valid matches stand.

    Attributes:
        ranks: (M,) int64, the matches' ranks from 1 among the query's valid entries, ascending within
            a query.
        offsets: (Q + 1,) int64: query i owns ``ranks[offsets[i]:offsets[i + 1]]``.
        entries: (Q,) int64, how many valid gallery entries each query has.
    """

    ranks: torch.Tensor
    offsets: torch.Tensor
    entries: torch.Tensor


def distances(query: torch.Tensor, gallery: torch.Tensor, metric: Metric) -> torch.Tensor:
    """(Q, G) float64 distances between the rows of (Q, D) ``query`` and (G, D) ``gallery``.

    Cosine distance is 1 - cosine similarity; a zero vector is at distance 1 from everything.
    """
    query, gallery = query.double(), gallery.double()
    if metric == "cosine":
        normalize = torch.nn.functional.normalize
        return 1 - normalize(query) @ normalize(gallery).T
    squared = query.square().sum(1, keepdim=True) + gallery.square().sum(1) - 2 * query @ gallery.T
    squared = squared.clamp_(min=0)
    return squared if metric == "sqeuclidean" else squared.sqrt_()


def rank_gallery(
    query: torch.Tensor,
    gallery: torch.Tensor,
    query_pids: torch.Tensor,
    gallery_pids: torch.Tensor,
    query_cams: torch.Tensor | None = None,
    gallery_cams: torch.Tensor | None = None,
    metric: Metric = "euclidean",
    block: int = 256,
) -> GalleryRanks:
    """Rank every query's matches under the Market-1501 protocol.

    For a query, gallery entries of pid -1 (junk) and, where cameras are given, of the query's own
    identity and camera are removed. Equal distances are ordered by gallery index.

    Args:
        query: (Q, D) float. gallery: (G, D) float. Compared in float64.
        query_pids: (Q,) int64. gallery_pids: (G,) int64; 0 marks a distractor, -1 junk.
        query_cams: (Q,) int64 or None. gallery_cams: (G,) int64 or None; both or neither.
        metric: ``euclidean``, ``sqeuclidean`` or ``cosine``.
        block: queries compared at once; memory is of order ``block * G``.
    """
    ranks, counts, entries = [], [], []
    for start in range(0, len(query), block):
        rows = slice(start, start + block)
        order = distances(query[rows], gallery, metric).argsort(dim=1, stable=True)
        match = query_pids[rows, None] == gallery_pids
        valid = (gallery_pids != -1).expand_as(match)
        if query_cams is not None and gallery_cams is not None:
            valid = valid & ~(match & (query_cams[rows, None] == gallery_cams))
        valid = valid.gather(1, order)
        match = match.gather(1, order) & valid
        rank = valid.cumsum(1)
        ranks.append(rank[match])
        counts.append(match.sum(1))
        entries.append(valid.sum(1))
    offsets = torch.zeros(len(query) + 1, dtype=torch.int64)
    offsets[1:] = torch.cat(counts).cumsum(0)
    return GalleryRanks(torch.cat(ranks), offsets, torch.cat(entries))
