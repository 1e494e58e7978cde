"""Evaluate features: the public ``evaluate`` function and its checks."""

from collections.abc import Sequence
from typing import Any, get_args
from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from pydantic import Field

from autoreid_fast import ops
from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation.metrics import Evaluation, summarize
from autoreid_fast.evaluation.ranking import Labels, ShowDone, rank, rank_reranked
from autoreid_fast.ops.rank_gallery.reference import Metric
from autoreid_fast.schema import Config

ROWS_AT_ONCE = 8192  # of features checked, which may be memory-mapped
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class RerankConfig(Config):
    """k-reciprocal re-ranking (Zhong et al., CVPR 2017; rows "RK" of Table 3)."""

    k1: int = Field(20, ge=1, description="Neighbours whose reciprocity counts (Zhong: 20).")
    k2: int = Field(6, ge=1, description="Neighbours averaged by local query expansion (Zhong: 6).")
    lambda_value: float = Field(
        0.3, ge=0, le=1, description="Share of the original distance in the final one (Zhong: 0.3)."
    )


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

    Gallery entries of pid -1 are junk and never ranked, pid 0 is a distractor; where cameras are given,
    entries of the query's own identity and camera are left out. Equal distances are ordered by gallery
    index. Queries without a valid match are counted and left out of the means. Under an initialised
    torch.distributed process group the processes share the work and all get the one result.

    Args:
        query_features: (Q, D) float array or tensor; fp16 and bf16 are widened and float64 is rounded to
            float32. gallery_features: (G, D) likewise, on the same device; may be memory-mapped.
        query_pids: (Q,) integers. gallery_pids: (G,) integers.
        query_cams: (Q,) integers or None. gallery_cams: (G,) integers or None; both or neither.
        metric: ``euclidean``, ``sqeuclidean`` or ``cosine``.
        ranks: the ranks at which the CMC curve is read, from 1.
        rerank: re-rank by k-reciprocal neighbours first; on squared Euclidean distances, so that ``metric``
            must be Euclidean. In one process.
        device: where to work; by default where the features are. A gallery larger than a GPU goes there in
            shards.
        show_done: called with the steps done and the steps in all.

    Raises:
        AutoReIDError: shapes or lengths that do not fit, values that are not finite, no valid query, a device
            that is not there.
    """
    if metric not in get_args(Metric):
        raise AutoReIDError(f"metric is {metric!r}: choose one of {', '.join(get_args(Metric))}")
    if any(rank_at < 1 for rank_at in ranks):
        raise AutoReIDError(f"ranks are {tuple(ranks)}: they start at 1")
    query = _features(query_features, "query_features")
    gallery = _features(gallery_features, "gallery_features")
    if query.shape[1] != gallery.shape[1]:
        raise AutoReIDError(
            f"query_features have {query.shape[1]} dimensions and gallery_features {gallery.shape[1]}: "
            "extract both with one network"
        )
    if query.device != gallery.device:
        raise AutoReIDError(f"query_features are on {query.device}, gallery_features on {gallery.device}")
    if query.dtype != gallery.dtype:
        query, gallery = query.float(), gallery.float()
    if (query_cams is None) != (gallery_cams is None):
        raise AutoReIDError("query_cams and gallery_cams: give both or neither")
    labels = Labels(
        _labels(query_pids, query, "query_pids"),
        _labels(gallery_pids, gallery, "gallery_pids"),
        None if query_cams is None else _labels(query_cams, query, "query_cams"),
        None if gallery_cams is None else _labels(gallery_cams, gallery, "gallery_cams"),
    )
    work = query.device if device is None else _device(device)
    if rerank is None:
        found = rank(query, gallery, labels, metric, work, show_done)
    else:
        if metric == "cosine":
            raise AutoReIDError("rerank is Euclidean: L2-normalise the features, then that orders as cosine")
        if current_shard().processes > 1:
            raise AutoReIDError("rerank runs in one process: start it without torchrun")
        parameters = (rerank.k1, rerank.k2, rerank.lambda_value)
        found = rank_reranked(query, gallery, labels, parameters, work, show_done)
    if not len(found.ranks):
        raise AutoReIDError(
            "no query has a valid match in the gallery: check query_pids and gallery_pids, and that an "
            "identity is seen by more than one camera"
        )
    return summarize(found, ranks)


def k_reciprocal(
    query_features: Any, gallery_features: Any, k1: int = 20, k2: int = 6, lambda_value: float = 0.3
) -> Any:
    """(Q, G) float32 distances re-ranked by k-reciprocal neighbours (Zhong et al., CVPR 2017), dense.

    An array for arrays, a tensor for tensors. Where that does not fit, ``evaluate(..., rerank=...)`` ranks by
    the same distances block by block.

    Args:
        query_features: (Q, D) float array or tensor. gallery_features: (G, D) likewise.
        k1: neighbours whose reciprocity counts. k2: neighbours averaged by local query expansion.
        lambda_value: share of the original, squared Euclidean distance in the result, 0 to 1.

    Raises:
        AutoReIDError: shapes, values or parameters that do not fit, or a result larger than the memory.
    """
    query = _features(query_features, "query_features")
    gallery = _features(gallery_features, "gallery_features")
    distances = ops.k_reciprocal(query, gallery, k1, k2, lambda_value)
    return distances if isinstance(query_features, torch.Tensor) else distances.numpy()


def _device(name: torch.device | str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (AssertionError, RuntimeError):  # torch without CUDA asserts
        raise AutoReIDError(f"device is {name}: torch has none of that name here") from None


def _features(values: Any, name: str) -> torch.Tensor:
    tensor = _tensor(values, name)
    if tensor.ndim != 2 or tensor.dtype not in FLOATS:
        raise AutoReIDError(f"{name} must be a 2-d float array, one row an image; got {_describe(tensor)}")
    if not tensor.numel():
        raise AutoReIDError(f"{name} is empty: shape {tuple(tensor.shape)}")
    for start in range(0, len(tensor), ROWS_AT_ONCE):
        finite = tensor[start : start + ROWS_AT_ONCE].isfinite().all(dim=1)
        if not finite.all():
            row = start + int((~finite).nonzero()[0])
            raise AutoReIDError(
                f"{name} holds NaN or infinity, first in row {row}: extract the features again"
            )
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def _labels(values: Any, features: torch.Tensor, name: str) -> torch.Tensor:
    tensor = _tensor(values, name)
    if tensor.ndim != 1 or tensor.is_floating_point() or tensor.is_complex():
        raise AutoReIDError(f"{name} must be a 1-d integer array; got {_describe(tensor)}")
    if len(tensor) != len(features):
        raise AutoReIDError(f"{name} has {len(tensor)} entries for {len(features)} features")
    return tensor.to(features.device, torch.int64)


def _tensor(values: Any, name: str) -> torch.Tensor:
    if isinstance(values, torch.Tensor):
        if values.is_meta or values.layout != torch.strided:
            got = f"{values.layout} on {values.device}"
            raise AutoReIDError(f"{name} must be dense and hold values; got {got}")
        return values.detach()
    try:
        array = np.asarray(values)
    except ValueError:
        raise AutoReIDError(f"{name} must be an array; got a list of rows of several lengths") from None
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    with catch_warnings():
        simplefilter("ignore", UserWarning)  # torch warns that a memory map is read-only: so it is meant
        try:
            return torch.from_numpy(np.ascontiguousarray(array))
        except TypeError:
            raise AutoReIDError(f"{name} must hold numbers; got an array of {array.dtype}") from None


def _describe(tensor: torch.Tensor) -> str:
    return f"shape {tuple(tensor.shape)}, {str(tensor.dtype).removeprefix('torch.')}"
