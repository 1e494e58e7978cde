"""The Market-1501 protocol (Zheng et al. 2015): who matches whom, and which entries a query does not rank.

Gallery entries of pid -1 are junk, which no query ranks; pid 0 marks distractors, which every query ranks and
none matches. Where cameras are known, a query does not rank entries of its own identity and camera.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from autoreid_fast.data.dataset import DISTRACTOR, JUNK
from autoreid_fast.ops.arguments import Arguments, TensorArgument
from autoreid_fast.ops.csr import offsets_of, row_indices, slice_rows

Metric = Literal["euclidean", "sqeuclidean", "cosine"]

LABELS = Arguments(
    "relevance_of",
    (
        TensorArgument("query_pids", ("Q",), (torch.int64,)),
        TensorArgument("gallery_pids", ("G",), (torch.int64,)),
        TensorArgument("query_cams", ("Q",), (torch.int64,), optional=True),
        TensorArgument("gallery_cams", ("G",), (torch.int64,), optional=True),
    ),
    may_be_zero=("Q", "G"),
    together=(("query_cams", "gallery_cams"),),
)


class Labels(NamedTuple):
    """Identities and cameras of the queries and the gallery entries.

    Attributes:
        query_pids: (Q,) int64.
        gallery_pids: (G,) int64.
        query_cams: (Q,) int64; None where cameras are not known, for both sides.
        gallery_cams: (G,) int64, or None.
    """

    query_pids: Tensor
    gallery_pids: Tensor
    query_cams: Tensor | None = None
    gallery_cams: Tensor | None = None

    def shard(self, start: int, stop: int) -> "Labels":
        """Labels of all queries and of the gallery entries ``start`` to ``stop`` - 1."""
        gallery_cams = None if self.gallery_cams is None else self.gallery_cams[start:stop]
        return Labels(self.query_pids, self.gallery_pids[start:stop], self.query_cams, gallery_cams)

    def of_queries(self, queries: slice) -> "Labels":
        """Labels of some queries and of the whole gallery."""
        query_cams = None if self.query_cams is None else self.query_cams[queries]
        return Labels(self.query_pids[queries], self.gallery_pids, query_cams, self.gallery_cams)

    def to(self, device: torch.device) -> "Labels":
        """The labels on ``device``."""
        return Labels(
            self.query_pids.to(device),
            self.gallery_pids.to(device),
            None if self.query_cams is None else self.query_cams.to(device),
            None if self.gallery_cams is None else self.gallery_cams.to(device),
        )


class Protocol(NamedTuple):
    """Counts and rules behind a score.

    Attributes:
        people: identities among the queries.
        queries: number of queries.
        gallery: number of gallery entries, with junk and distractors.
        junk: gallery entries of pid -1, which no query ranks.
        distractors: gallery entries of pid 0 that no query shows.
        cameras: number of cameras; None where they are not known.
        shared_cameras: number of cameras that both the queries and the gallery have.
    """

    people: int
    queries: int
    gallery: int
    junk: int
    distractors: int
    cameras: int | None
    shared_cameras: int | None = None

    @property
    def rule(self) -> str:
        """The rule about cameras that is in force."""
        if self.cameras is None:
            return "cameras not known: every image of a query's person counts"
        if not self.shared_cameras:
            return "query and gallery have no camera in common: every image of a query's person counts"
        return "gallery images of a query's own person and camera are left out"

    def to_dict(self) -> dict[str, int | str | None]:
        """The counts and the rule, for JSON."""
        return {**self._asdict(), "rule": self.rule}

    def __str__(self) -> str:
        """Two lines: the counts, and the rule."""
        cameras = "" if self.cameras is None else f", {self.cameras:,} cameras"
        return (
            f"{self.people:,} people, {self.queries:,} queries, gallery of {self.gallery:,} ({self.junk:,} "
            f"junk, {self.distractors:,} distractors){cameras}\n{self.rule}"
        )


def protocol_of(labels: Labels) -> Protocol:
    """Count what the protocol says about ``labels``."""
    queries, gallery = labels.query_pids, labels.gallery_pids
    distractors = (gallery == DISTRACTOR).sum() if not (queries == DISTRACTOR).any() else 0
    cameras = shared_cameras = None
    if labels.query_cams is not None and labels.gallery_cams is not None:
        query_cameras, gallery_cameras = labels.query_cams.unique(), labels.gallery_cams.unique()
        cameras = len(torch.cat([query_cameras, gallery_cameras]).unique())
        shared_cameras = len(query_cameras) + len(gallery_cameras) - cameras
    return Protocol(
        people=len(queries[queries != JUNK].unique()),
        queries=len(queries),
        gallery=len(gallery),
        junk=int((gallery == JUNK).sum()),
        distractors=int(distractors),
        cameras=cameras,
        shared_cameras=shared_cameras,
    )


class Relevance(NamedTuple):
    """Matches and exclusions of every query in a gallery, or in a shard of one.

    Attributes:
        match_offsets: (Q + 1,) int64; query i is matched by the gallery entries
            ``matches[match_offsets[i]:match_offsets[i + 1]]``.
        matches: (M,) int64 gallery indices, ascending within a query.
        excluded_offsets: (Q + 1,) int64; query i does not rank the entries
            ``excluded[excluded_offsets[i]:excluded_offsets[i + 1]]``, those of its own identity and camera.
        excluded: (X,) int64 gallery indices, ascending within a query.
        valid: (G,) bool, False for junk.
        entries: (Q,) int64 number of entries that each query ranks.
    """

    match_offsets: Tensor
    matches: Tensor
    excluded_offsets: Tensor
    excluded: Tensor
    valid: Tensor
    entries: Tensor

    def rows(self, start: int, stop: int) -> "Relevance":
        """The relevance for the queries ``start`` to ``stop`` - 1."""
        match_offsets, matches = slice_rows(self.match_offsets, self.matches, start, stop)
        excluded_offsets, excluded = slice_rows(self.excluded_offsets, self.excluded, start, stop)
        entries = self.entries[start:stop]
        return Relevance(match_offsets, matches, excluded_offsets, excluded, self.valid, entries)

    def ranked_by(self, query: int) -> Tensor:
        """(G,) bool: the entries that this query ranks."""
        ranked = self.valid.clone()
        ranked[self.excluded[self.excluded_offsets[query] : self.excluded_offsets[query + 1]]] = False
        return ranked

    def matching(self, query: int) -> Tensor:
        """(G,) bool: the entries that match this query."""
        matching = torch.zeros_like(self.valid)
        matching[self.matches[self.match_offsets[query] : self.match_offsets[query + 1]]] = True
        return matching


class Thresholds(NamedTuple):
    """Matches of every query in the order of its ranking: `ops.count_closer` counts the entries before them.

    Attributes:
        offsets: (Q + 1,) int64; query i has the thresholds ``offsets[i]`` to ``offsets[i + 1]`` - 1.
        keys: (M,) float32, ascending within a query.
        indices: (M,) int64 gallery indices, ascending among equal keys.
    """

    offsets: Tensor
    keys: Tensor
    indices: Tensor

    def rows(self, start: int, stop: int) -> "Thresholds":
        """The thresholds of the queries ``start`` to ``stop`` - 1."""
        offsets, keys = slice_rows(self.offsets, self.keys, start, stop)
        _, indices = slice_rows(self.offsets, self.indices, start, stop)
        return Thresholds(offsets, keys, indices)


class GalleryRanks(NamedTuple):
    """Ranks of every query's matches.

    Attributes:
        ranks: (M,) int64 ranks from 1 among the entries that the query ranks, ascending within a query.
        offsets: (Q + 1,) int64; query i has ``ranks[offsets[i]:offsets[i + 1]]``.
        entries: (Q,) int64 number of entries that each query ranks.
    """

    ranks: Tensor
    offsets: Tensor
    entries: Tensor


def relevance_of(labels: Labels) -> Relevance:
    """Apply the protocol to the labels.

    Raises:
        AutoReIDError: shapes, dtypes or devices do not match, or only one side has cameras.
    """
    LABELS.check(**labels._asdict())
    query_pids, gallery_pids, query_cams, gallery_cams = labels
    device = query_pids.device
    # Entries of one identity are a run of the sorted gallery; the sort is stable, so their indices ascend.
    pids, order = gallery_pids.sort(stable=True)
    wanted = query_pids.contiguous()
    first = torch.searchsorted(pids, wanted)
    lengths = torch.searchsorted(pids, wanted, right=True) - first
    lengths = torch.where(query_pids == JUNK, 0, lengths)
    starts = offsets_of(lengths)
    rows = row_indices(starts)
    columns = order[torch.arange(len(rows), device=device) + (first - starts[:-1])[rows]]
    if query_cams is None or gallery_cams is None:
        excluded = torch.zeros_like(rows, dtype=torch.bool)
    else:
        excluded = query_cams[rows] == gallery_cams[columns]
    num_excluded = torch.bincount(rows[excluded], minlength=len(query_pids))
    valid = gallery_pids != JUNK
    return Relevance(
        match_offsets=offsets_of(lengths - num_excluded),
        matches=columns[~excluded],
        excluded_offsets=offsets_of(num_excluded),
        excluded=columns[excluded],
        valid=valid,
        entries=valid.sum() - num_excluded,
    )


def order_thresholds(num_query: int, rows: Tensor, keys: Tensor, indices: Tensor) -> Thresholds:
    """Sort matches into thresholds.

    Args:
        num_query: Q.
        rows: (M,) int64 query of each match, in any order.
        keys: (M,) float32 key of each match.
        indices: (M,) int64 index of each match in the whole gallery.
    """
    order = indices.argsort(stable=True)
    order = order[keys[order].argsort(stable=True)]
    order = order[rows[order].argsort(stable=True)]
    return Thresholds(offsets_of(torch.bincount(rows, minlength=num_query)), keys[order], indices[order])
