"""The k nearest gallery entries of every query, exact, by blocks, in bounded memory; ties by index.

Keys are those of `ops.rank_gallery`, so the two agree on every order. Nothing here is differentiable.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops import contract
from autoreid_fast.ops.nearest import reference as twin
from autoreid_fast.ops.rank_gallery import check_features
from autoreid_fast.ops.rank_gallery.reference import Metric

MAX_NEAREST = 1000


class Nearest(NamedTuple):
    """What `nearest` returns.

    Attributes:
        distances: (Q, k) float32, ascending.
        indices: (Q, k) int64 gallery indices, ascending among equal distances.
    """

    distances: Tensor
    indices: Tensor


def nearest(query: Tensor, gallery: Tensor, k: int, metric: Metric = "euclidean") -> Nearest:
    """The k nearest gallery entries of every query.

    Args:
        query: (Q, D) float32, float16 or bfloat16 (float32 inside). gallery: (G, D) likewise; any strides.
        k: from 1 to 1000, at most G.
        metric: `euclidean`, `sqeuclidean`, or `cosine` (1 - cosine similarity, at least 0).

    Raises:
        AutoReIDError: shapes or dtypes that do not fit, features that are not finite, k out of range.
    """
    cosine = check_features("nearest", query, gallery, metric)
    _check_k("nearest", k, len(gallery))
    run = twin.nearest if contract.reference_forced() else torch.ops.autoreid_fast.nearest
    keys, indices = run(query.detach(), gallery.detach(), k, cosine)
    if cosine:
        return Nearest((1 + keys).clamp_(min=0), indices)
    return Nearest(keys.sqrt() if metric == "euclidean" else keys, indices)


def nearest_block(block: Tensor, k: int) -> Nearest:
    """The k smallest of every row of (Q, G) float32 ``block``, and their columns; any strides.

    Args:
        block: distances without NaN.
        k: from 1 to 1000, at most G.

    Raises:
        AutoReIDError: a wrong shape or dtype, k out of range.
    """
    if block.ndim != 2 or block.dtype != torch.float32:
        raise AutoReIDError(
            f"nearest_block: block is {tuple(block.shape)} {block.dtype}; expected (Q, G) torch.float32"
        )
    _check_k("nearest_block", k, block.shape[1])
    run = twin.nearest_block if contract.reference_forced() else torch.ops.autoreid_fast.nearest_block
    return Nearest(*run(block.detach(), k))


def _check_k(op: str, k: int, entries: int) -> None:
    if not 1 <= k <= MAX_NEAREST:
        raise AutoReIDError(f"{op}: k is {k}; it is from 1 to {MAX_NEAREST}")
    if k > entries:
        raise AutoReIDError(f"{op}: k is {k}, but the gallery has {entries} entries: ask for fewer")


def _fake_nearest(query: Tensor, gallery: Tensor, k: int, cosine: bool) -> tuple[Tensor, Tensor]:
    return _fake_nearest_block(query, k)


def _fake_nearest_block(block: Tensor, k: int) -> tuple[Tensor, Tensor]:
    shape = (block.shape[0], k)
    return block.new_empty(shape, dtype=torch.float32), block.new_empty(shape, dtype=torch.int64)


contract.define(
    "nearest",
    "(Tensor query, Tensor gallery, int k, bool cosine) -> (Tensor keys, Tensor indices)",
    twin.nearest,
    _fake_nearest,
)
contract.define(
    "nearest_block",
    "(Tensor block, int k) -> (Tensor keys, Tensor indices)",
    twin.nearest_block,
    _fake_nearest_block,
)
