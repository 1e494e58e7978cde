"""From ranks to CMC, mAP and mINP, with what chance would give."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from autoreid_fast.ops.rank_gallery.reference import GalleryRanks


@dataclass(frozen=True)
class Evaluation:
    """How well a gallery was ranked.

    Queries without a valid match are counted and left out of every mean.

    Attributes:
        cmc: rank -> share of the valid queries with a match at that rank or before.
        mAP: mean over queries of the mean precision at each hit (torchreid, fast-reid).
        mAP_trapezoid: the same with the trapezoid rule of the Market-1501 MATLAB code.
        mINP: mean inverse negative penalty: matches over the rank of the last one (Ye et al., AGW).
        num_query: queries given; num_valid: those with a valid match.
        chance: ``rank1`` and ``mAP`` expected of a random order of the same entries.
        average_precision: (Q,) float64, NaN where a query has no valid match.
        first_hit: (Q,) int64, rank of the first match from 1; -1 where there is none.
    """

    cmc: dict[int, float]
    mAP: float
    mAP_trapezoid: float
    mINP: float
    num_query: int
    num_valid: int
    chance: dict[str, float]
    average_precision: np.ndarray = field(repr=False)
    first_hit: np.ndarray = field(repr=False)

    def to_dict(self) -> dict[str, object]:
        """The scalar results, for JSON."""
        return {
            **{f"rank{rank}": share for rank, share in self.cmc.items()},
            "mAP": self.mAP,
            "mAP_trapezoid": self.mAP_trapezoid,
            "mINP": self.mINP,
            "num_query": self.num_query,
            "num_valid": self.num_valid,
            "chance": self.chance,
        }

    def __str__(self) -> str:
        rows = [(f"rank-{rank}", share) for rank, share in self.cmc.items()]
        rows += [("mAP", self.mAP), ("mAP (trapezoid)", self.mAP_trapezoid), ("mINP", self.mINP)]
        lines = [f"{name:<16}{100 * value:6.2f} %" for name, value in rows]
        lines.append(f"{'queries':<16}{self.num_valid:6d} of {self.num_query} with a valid match")
        return "\n".join(lines)


def summarize(gallery_ranks: GalleryRanks, ranks: Sequence[int]) -> Evaluation:
    """CMC at ``ranks``, both APs and INP of each query, and their means over the valid queries.

    What is of each match is computed where the ranks are; only what is of each query comes to the CPU.
    """
    hits, offsets = gallery_ranks.ranks, gallery_ranks.offsets
    counts = offsets.diff()
    starts = offsets[:-1].repeat_interleave(counts, output_size=len(hits))
    found = torch.arange(1, len(hits) + 1, device=hits.device) - starts
    precision = found.double() / hits
    # just before a hit: found - 1 matches among rank - 1 entries; 1 by definition before the first entry
    before = torch.where(hits > 1, (found.double() - 1) / (hits - 1), 1.0)
    both = torch.stack([precision, (precision + before) / 2], 1)
    sums = torch.segment_reduce(both, "sum", offsets=offsets, unsafe=True).cpu().numpy()
    ends = hits[torch.stack([offsets[:-1], offsets[1:] - 1]).clamp(0, len(hits) - 1)]
    matches, entries, first, last = torch.stack([counts, gallery_ranks.entries, *ends]).cpu().numpy()

    num_query, some = len(matches), matches > 0
    average_precision, trapezoid = np.divide(sums.T, matches, out=np.full((2, num_query), np.nan), where=some)
    inverse_penalty = np.divide(matches, last, out=np.full(num_query, np.nan), where=some)
    first_hit = np.where(some, first, -1)
    valid = first_hit > 0
    chance = _chance(matches[valid], entries[valid])
    return Evaluation(
        cmc={rank: float((first_hit[valid] <= rank).mean()) for rank in ranks},
        mAP=float(average_precision[valid].mean()),
        mAP_trapezoid=float(trapezoid[valid].mean()),
        mINP=float(inverse_penalty[valid].mean()),
        num_query=num_query,
        num_valid=int(valid.sum()),
        chance=chance,
        average_precision=average_precision,
        first_hit=first_hit,
    )


def _chance(matches: np.ndarray, entries: np.ndarray) -> dict[str, float]:
    """Expected rank-1 and mAP when each query's entries stand in random order.

    A hit at rank r has on average 1 + (r - 1) (matches - 1) / (entries - 1) hits up to it, and stands at
    each rank with the same probability, which sums to the closed form below.
    """
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, entries.max() + 1))])[entries]
    others = np.divide(matches - 1, entries - 1, out=np.zeros(len(matches)), where=entries > 1)
    average_precision = (harmonic + others * (entries - harmonic)) / entries
    return {"rank1": float((matches / entries).mean()), "mAP": float(average_precision.mean())}
