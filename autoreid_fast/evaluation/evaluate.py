"""Evaluate features that are already extracted: the public `evaluate`."""

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any, get_args

import torch

from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation.inputs import features_of, label_tensors
from autoreid_fast.evaluation.metrics import Evaluation, score_queries, summarize
from autoreid_fast.evaluation.protocol import Labels, Metric, protocol_of
from autoreid_fast.evaluation.ranking import ShowDone, rank_in_groups
from autoreid_fast.evaluation.reranking import RerankConfig, rank_reranked


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
    rerank: RerankConfig | None = None,
    device: torch.device | str | None = None,
    show_done: ShowDone | None = None,
) -> Evaluation:
    """Rank a gallery for every query and score the ranking (Market-1501 protocol, Zheng et al. 2015).

    Gallery entries of pid -1 are junk, which is never ranked; pid 0 is a distractor. Where cameras are given,
    a query does not rank entries of its own identity and camera. Equal distances are ordered by gallery
    index. Queries without a valid match are counted and left out of the means. In an initialised
    torch.distributed process group the processes share the work: call it in all of them, with the same
    arguments, and each gets the same result.

    Args:
        query_features: (Q, D) float array or tensor. float16 and bfloat16 are computed in float32; float64 is
            rounded to float32.
        gallery_features: (G, D), on the same device; may be memory-mapped.
        query_pids: (Q,) whole numbers or names (text). Whole numbers go by their value, as text too: "0003"
            is 3, and -1 and 0 mean junk and distractors beside names as well.
        gallery_pids: (G,) whole numbers or names.
        query_cams: (Q,) whole numbers or names. Give both ``query_cams`` and ``gallery_cams``, or neither.
        gallery_cams: (G,) whole numbers or names.
        metric: `euclidean`, `sqeuclidean` or `cosine`.
        ranks: ranks of the CMC curve to report, from 1.
        rerank: re-rank by k-reciprocal neighbours first. Needs a Euclidean ``metric`` and a single process.
        device: where to compute; the device of the features by default. A gallery larger than a GPU's memory
            goes there in shards.
        show_done: called with the steps done and the total number of steps.

    Raises:
        AutoReIDError: shapes or lengths do not match, values are not finite, no query has a valid match, the
            device does not exist, or the processes of a group have different arguments.

    Examples:
        >>> import numpy as np
        >>> from autoreid_fast import evaluate
        >>> query = np.array([[0.0, 1.0], [1.0, 0.0]], dtype=np.float32)
        >>> gallery = np.array([[0.1, 0.9], [0.8, 0.0], [0.7, 0.1]], dtype=np.float32)
        >>> result = evaluate(query, gallery, [1, 2], [1, 3, 2])
        >>> result.cmc[1], round(result.mAP, 2)
        (0.5, 0.75)
    """
    _check_options(metric, ranks, rerank)
    query, gallery = _matching_features(query_features, gallery_features)
    if (query_cams is None) != (gallery_cams is None):
        raise AutoReIDError("query_cams and gallery_cams: give both or neither")
    features = (query, gallery)
    pids = label_tensors(query_pids, gallery_pids, ("query_pids", "gallery_pids"), features)
    cameras: tuple[torch.Tensor, torch.Tensor] | tuple[None, None] = (None, None)
    if query_cams is not None:
        cameras = label_tensors(query_cams, gallery_cams, ("query_cams", "gallery_cams"), features)
    labels = Labels(*pids, *cameras)
    work_device = query.device if device is None else _checked_device(device)
    if rerank is None:
        ranked = rank_in_groups(query, gallery, labels, metric, work_device, show_done)
    else:
        ranked = iter([rank_reranked(query, gallery, labels, rerank, work_device, show_done)])
    scores = [score_queries(gallery_ranks) for gallery_ranks in ranked]
    if not any(group.matches.any() for group in scores):
        raise AutoReIDError(
            "no query has a valid match in the gallery: check query_pids and gallery_pids, and that an "
            "identity is seen by more than one camera"
        )
    return summarize(scores, ranks, protocol_of(labels))


def _check_options(metric: str, ranks: Sequence[int], rerank: RerankConfig | None) -> None:
    if metric not in get_args(Metric):
        raise AutoReIDError(f"metric is {metric!r}: choose one of {', '.join(get_args(Metric))}")
    if not isinstance(ranks, Iterable) or not all(_is_rank(rank) for rank in ranks):
        raise AutoReIDError(f"ranks is {ranks!r}; expected whole numbers from 1, as in (1, 5, 10)")
    if rerank is not None and not isinstance(rerank, RerankConfig):
        raise AutoReIDError(
            f"rerank is {rerank!r}; expected a RerankConfig, as in rerank=autoreid_fast.RerankConfig(k1=20)"
        )
    if rerank is not None and metric == "cosine":
        raise AutoReIDError(
            "rerank needs a Euclidean metric: L2-normalise the features, then it orders as cosine does"
        )
    if rerank is not None and current_shard().processes > 1:
        raise AutoReIDError("rerank runs in a single process: start it without torchrun")


def _is_rank(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _matching_features(query_features: Any, gallery_features: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Checked features of one dtype."""
    query = features_of(query_features, "query_features")
    gallery = features_of(gallery_features, "gallery_features")
    if query.shape[1] != gallery.shape[1]:
        raise AutoReIDError(
            f"query_features have {query.shape[1]} dimensions and gallery_features {gallery.shape[1]}: "
            "extract both with one network"
        )
    if query.device != gallery.device:
        raise AutoReIDError(
            f"query_features are on {query.device} and gallery_features on {gallery.device}: move one of them"
        )
    return (query, gallery) if query.dtype == gallery.dtype else (query.float(), gallery.float())


def _checked_device(name: torch.device | str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (AssertionError, RuntimeError):  # torch without CUDA asserts
        raise AutoReIDError(f"device is {name}: torch has no such device here") from None
