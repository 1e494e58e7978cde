"""Evaluate features: the public ``evaluate`` function, its checks and its path from arrays to figures."""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import torch

from autoreid_fast.engine.metrics import Evaluation, summarize
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.reference.rank_gallery import Metric, rank_gallery


def evaluate(
    query_features: Any,
    gallery_features: Any,
    query_pids: Any,
    gallery_pids: Any,
    query_cams: Any = None,
    gallery_cams: Any = None,
    *,
    metric: Metric = "euclidean",
    ranks: Sequence[int] = (1, 5, 10),
) -> Evaluation:
    """Rank a gallery for every query and score the ranking (Market-1501 protocol, Zheng et al. 2015).

    Gallery entries of pid -1 are junk and never ranked, pid 0 is a distractor; where cameras are given,
    entries of the query's own identity and camera are left out. Equal distances are ordered by gallery
    index. Queries without a valid match are counted and left out of the means.

    Args:
        query_features: (Q, D) float array or tensor. gallery_features: (G, D) likewise.
        query_pids: (Q,) integers. gallery_pids: (G,) integers.
        query_cams: (Q,) integers or None. gallery_cams: (G,) integers or None; both or neither.
        metric: ``euclidean``, ``sqeuclidean`` or ``cosine``.
        ranks: the ranks at which the CMC curve is read.

    Raises:
        AutoReIDError: shapes or lengths that do not fit, values that are not finite, no valid query.
    """
    if metric not in get_args(Metric):
        raise AutoReIDError(f"metric is {metric!r}: choose one of {', '.join(get_args(Metric))}")
    query = _features(query_features, "query_features")
    gallery = _features(gallery_features, "gallery_features")
    if query.shape[1] != gallery.shape[1]:
        raise AutoReIDError(
            f"query_features have {query.shape[1]} dimensions and gallery_features {gallery.shape[1]}: "
            "extract both with one network"
        )
    if (query_cams is None) != (gallery_cams is None):
        raise AutoReIDError("query_cams and gallery_cams: give both or neither")
    cameras: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None)
    if query_cams is not None:
        cameras = _labels(query_cams, query, "query_cams"), _labels(gallery_cams, gallery, "gallery_cams")
    gallery_ranks = rank_gallery(
        query,
        gallery,
        _labels(query_pids, query, "query_pids"),
        _labels(gallery_pids, gallery, "gallery_pids"),
        *cameras,
        metric=metric,
    )
    if not len(gallery_ranks.ranks):
        raise AutoReIDError(
            "no query has a valid match in the gallery: check query_pids and gallery_pids, and that an "
            "identity is seen by more than one camera"
        )
    return summarize(gallery_ranks, ranks)


def _features(values: Any, name: str) -> torch.Tensor:
    tensor = _tensor(values)
    if tensor.ndim != 2 or not tensor.is_floating_point():
        raise AutoReIDError(f"{name} must be a 2-d float array, one row an image; got {_describe(tensor)}")
    if not len(tensor):
        raise AutoReIDError(f"{name} is empty")
    finite = tensor.isfinite().all(dim=1)
    if not finite.all():
        first = int((~finite).nonzero()[0])
        raise AutoReIDError(f"{name} holds NaN or infinity, first in row {first}: extract the features again")
    return tensor


def _labels(values: Any, features: torch.Tensor, name: str) -> torch.Tensor:
    tensor = _tensor(values)
    if tensor.ndim != 1 or tensor.is_floating_point() or tensor.is_complex():
        raise AutoReIDError(f"{name} must be a 1-d integer array; got {_describe(tensor)}")
    if len(tensor) != len(features):
        raise AutoReIDError(f"{name} has {len(tensor)} entries for {len(features)} features")
    return tensor.long()


def _tensor(values: Any) -> torch.Tensor:
    if isinstance(values, torch.Tensor):
        return values.detach().cpu()
    return torch.from_numpy(np.ascontiguousarray(values))


def _describe(tensor: torch.Tensor) -> str:
    return f"shape {tuple(tensor.shape)}, {str(tensor.dtype).removeprefix('torch.')}"
