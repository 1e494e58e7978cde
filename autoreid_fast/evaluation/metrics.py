"""From ranks to CMC, mAP and mINP, and the scores of a random order for comparison."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from autoreid_fast.evaluation.protocol import GalleryRanks, Protocol


@dataclass(frozen=True)
class Evaluation:
    """Scores of a ranked gallery.

    Queries without a valid match are counted and left out of every mean.

    Attributes:
        cmc: rank -> fraction of the valid queries with a match at that rank or before.
        mAP: mean over queries of the mean precision at each hit (torchreid, fast-reid).
        mAP_trapezoid: mean over queries of AP by the trapezoid rule of the Market-1501 MATLAB code.
        mINP: mean inverse negative penalty: matches over the rank of the last one (Ye et al., AGW).
        num_query: number of queries.
        num_valid: number of queries with a valid match.
        protocol: people, gallery, junk, distractors and cameras that were scored, and the rule in force.
        chance: ``rank1`` and ``mAP`` expected of a random order of the same entries.
        average_precision: (Q,) float64, NaN where a query has no valid match.
        first_hit: (Q,) int64 rank of the first match from 1; -1 where there is none.
    """

    cmc: dict[int, float]
    mAP: float
    mAP_trapezoid: float
    mINP: float
    num_query: int
    num_valid: int
    protocol: Protocol
    chance: dict[str, float]
    average_precision: np.ndarray = field(repr=False)
    first_hit: np.ndarray = field(repr=False)

    def to_dict(self) -> dict[str, object]:
        """The scalar results, for JSON."""
        return {
            **{f"rank{rank}": fraction for rank, fraction in self.cmc.items()},
            "mAP": self.mAP,
            "mAP_trapezoid": self.mAP_trapezoid,
            "mINP": self.mINP,
            "num_query": self.num_query,
            "num_valid": self.num_valid,
            "protocol": self.protocol.to_dict(),
            "chance": self.chance,
        }

    def __str__(self) -> str:
        """The protocol, and the scores as a table in percent."""
        rows = [(f"rank-{rank}", fraction) for rank, fraction in self.cmc.items()]
        rows += [("mAP", self.mAP), ("mAP (trapezoid)", self.mAP_trapezoid), ("mINP", self.mINP)]
        lines = [f"{name:<16}{100 * value:6.2f} %" for name, value in rows]
        lines.append(f"{'queries':<16}{self.num_valid:6d} of {self.num_query} with a valid match")
        return "\n".join([str(self.protocol), *lines])


class QueryScores(NamedTuple):
    """Scores of every query, before they are averaged.

    Attributes:
        matches: (Q,) int64 number of matches.
        entries: (Q,) int64 number of entries that the query ranks.
        first: (Q,) int64 rank of the first match; of no meaning where there is none, like ``last``.
        last: (Q,) int64 rank of the last match.
        precision_sums: (Q, 2) float64 sums over the matches: of the precision, and of its trapezoid.
    """

    matches: np.ndarray
    entries: np.ndarray
    first: np.ndarray
    last: np.ndarray
    precision_sums: np.ndarray


def score_queries(gallery_ranks: GalleryRanks) -> QueryScores:
    """Sum over each query's matches, on the device of the ranks; only one row per query comes to the CPU."""
    match_ranks, offsets = gallery_ranks.ranks, gallery_ranks.offsets
    counts = offsets.diff()
    if not len(match_ranks):
        none = np.zeros(len(counts), dtype=np.int64)
        return QueryScores(none, gallery_ranks.entries.cpu().numpy(), none, none, np.zeros((len(counts), 2)))
    ends = torch.stack([offsets[:-1], offsets[1:] - 1]).clamp(0, len(match_ranks) - 1)
    columns = torch.stack([counts, gallery_ranks.entries, *match_ranks[ends]]).cpu().numpy()
    matches, entries, first, last = columns
    precision_sums = _precision_sums(match_ranks, offsets, counts).cpu().numpy()
    return QueryScores(matches, entries, first, last, precision_sums)


def summarize(groups: Sequence[QueryScores], ranks: Sequence[int], protocol: Protocol) -> Evaluation:
    """Compute CMC at ``ranks``, both APs and INP of each query, and their means over the valid queries.

    Args:
        groups: scores of the queries, some at a time; one of them has a match.
        ranks: ranks of the CMC curve.
        protocol: the protocol of all queries.
    """
    scores = QueryScores(*(np.concatenate(columns) for columns in zip(*groups, strict=True)))
    matches, valid = scores.matches, scores.matches > 0
    num_query = len(matches)
    average_precision, trapezoid = np.divide(
        scores.precision_sums.T, matches, out=np.full((2, num_query), np.nan), where=valid
    )
    inverse_penalty = np.divide(matches, scores.last, out=np.full(num_query, np.nan), where=valid)
    first_hit = np.where(valid, scores.first, -1)
    return Evaluation(
        cmc={rank: float((first_hit[valid] <= rank).mean()) for rank in ranks},
        mAP=float(average_precision[valid].mean()),
        mAP_trapezoid=float(trapezoid[valid].mean()),
        mINP=float(inverse_penalty[valid].mean()),
        num_query=num_query,
        num_valid=int(valid.sum()),
        protocol=protocol,
        chance=_chance(matches[valid], scores.entries[valid]),
        average_precision=average_precision,
        first_hit=first_hit,
    )


def _precision_sums(ranks: torch.Tensor, offsets: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """(Q, 2) float64 sums over the ranks of each query's matches: of the precision, and of its trapezoid."""
    starts = offsets[:-1].repeat_interleave(counts, output_size=len(ranks))
    position = torch.arange(1, len(ranks) + 1, device=ranks.device) - starts  # of a match among its query's
    precision = position.double() / ranks
    # just before a match: position - 1 matches among rank - 1 entries; 1 by definition before the first entry
    before = torch.where(ranks > 1, (position.double() - 1) / (ranks - 1), 1.0)
    both = torch.stack([precision, (precision + before) / 2], 1)
    return torch.segment_reduce(both, "sum", offsets=offsets, unsafe=True)


def _chance(matches: np.ndarray, entries: np.ndarray) -> dict[str, float]:
    """Expected rank-1 and mAP when each query's entries are in random order.

    A match at rank r has 1 + (r - 1) (matches - 1) / (entries - 1) matches up to it on average, and every
    rank is equally likely. The sum over the ranks is the closed form below.
    """
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, entries.max() + 1))])[entries]
    others = np.divide(matches - 1, entries - 1, out=np.zeros(len(matches)), where=entries > 1)
    average_precision = (harmonic + others * (entries - harmonic)) / entries
    return {"rank1": float((matches / entries).mean()), "mAP": float(average_precision.mean())}
