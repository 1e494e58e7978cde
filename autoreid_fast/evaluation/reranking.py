"""k-reciprocal re-ranking (Zhong et al., CVPR 2017): its config, ranking by it, and its dense distances."""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from autoreid_fast import ops
from autoreid_fast.evaluation.inputs import features_of
from autoreid_fast.evaluation.protocol import GalleryRanks, Labels, relevance_of
from autoreid_fast.evaluation.ranking import ShowDone, rank_distances
from autoreid_fast.schema import Config

BLOCK_BYTES = 1 << 26  # of re-ranked distances at once


class RerankConfig(Config):
    """k-reciprocal re-ranking (Zhong et al., CVPR 2017; rows "RK" of Table 3)."""

    k1: int = Field(20, ge=1, le=100_000, description="Neighbours tested for reciprocity (Zhong: 20).")
    k2: int = Field(
        6, ge=1, le=100_000, description="Neighbours averaged by local query expansion (Zhong: 6)."
    )
    lambda_value: float = Field(
        0.3, ge=0, le=1, description="Weight of the original distance in the final one (Zhong: 0.3)."
    )


def rank_reranked(
    query: Tensor,
    gallery: Tensor,
    labels: Labels,
    config: RerankConfig,
    device: torch.device,
    show_done: ShowDone | None = None,
) -> GalleryRanks:
    """Rank every query's matches by k-reciprocal distances, block by block: never a (Q, G) matrix.

    Args:
        query: (Q, D) float features.
        gallery: (G, D) of the same dtype.
        labels: labels of both.
        config: parameters of the re-ranking.
        device: where to compute.
        show_done: called with the queries done and the total number of queries.
    """
    relevance = relevance_of(labels.to(device))
    encoding = ops.k_reciprocal_encode(
        query.to(device), gallery.to(device), config.k1, config.k2, config.lambda_value
    )
    rows = max(1, BLOCK_BYTES // (4 * len(gallery)))
    ranks = []
    for start in range(0, len(query), rows):
        stop = min(start + rows, len(query))
        ranks.append(rank_distances(encoding.block(start, stop), relevance.rows(start, stop)).ranks)
        if show_done is not None:
            show_done(stop, len(query))
    return GalleryRanks(torch.cat(ranks), relevance.match_offsets, relevance.entries)


def k_reciprocal(
    query_features: Any, gallery_features: Any, k1: int = 20, k2: int = 6, lambda_value: float = 0.3
) -> Any:
    """Re-rank by k-reciprocal neighbours (Zhong et al., CVPR 2017): dense (Q, G) float32 distances.

    Where they do not fit in memory, ``evaluate(..., rerank=...)`` ranks by the same distances block by block.

    Args:
        query_features: (Q, D) float array or tensor.
        gallery_features: (G, D) float array or tensor.
        k1: neighbours tested for reciprocity.
        k2: neighbours averaged by local query expansion.
        lambda_value: weight of the original, squared Euclidean distance in the result, 0 to 1.

    Returns:
        A tensor if ``query_features`` is one, otherwise a NumPy array.

    Raises:
        AutoReIDError: shapes, values or parameters are wrong, or the result exceeds the memory.

    Examples:
        >>> import numpy as np
        >>> from autoreid_fast import k_reciprocal
        >>> rng = np.random.default_rng(0)
        >>> k_reciprocal(rng.normal(size=(3, 8)), rng.normal(size=(10, 8)), k1=4, k2=2).shape
        (3, 10)
    """
    query = features_of(query_features, "query_features")
    gallery = features_of(gallery_features, "gallery_features")
    distances = ops.k_reciprocal(query, gallery, k1, k2, lambda_value)
    return distances if isinstance(query_features, torch.Tensor) else distances.numpy()
