"""The k nearest gallery entries of every query, exact, in bounded memory; ties by gallery index.

Keys are those of `ops.match_keys` and `ops.count_closer` (`ops.keys`), so that all agree on every order. Not
differentiable.
"""

from typing import NamedTuple

from torch import Tensor

from autoreid_fast.ops.contract import run
from autoreid_fast.ops.keys import require_finite
from autoreid_fast.ops.nearest.spec import (
    MAX_NEAREST,
    NEAREST,
    NEAREST_ARGUMENTS,
    NEAREST_BLOCK,
    NEAREST_BLOCK_ARGUMENTS,
)

__all__ = ["MAX_NEAREST", "Nearest", "nearest", "nearest_block"]


class Nearest(NamedTuple):
    """Nearest gallery entries of every query.

    Attributes:
        distances: (Q, k) float32, ascending.
        indices: (Q, k) int64 gallery indices, ascending among equal distances.
    """

    distances: Tensor
    indices: Tensor


def nearest(query: Tensor, gallery: Tensor, k: int, metric: str = "euclidean") -> Nearest:
    """Find the k nearest gallery entries of every query.

    Args:
        query: (Q, D) float32, float16 or bfloat16, computed in float32; any strides.
        gallery: (G, D) of the same dtype; any strides.
        k: 1 to `MAX_NEAREST` (1000), at most G.
        metric: `euclidean`, `sqeuclidean`, or `cosine` (1 - cosine similarity, at least 0).

    Raises:
        AutoReIDError: shapes, dtypes or devices do not match, features are not finite, or k is out of range.

    Examples:
        >>> import torch
        >>> from autoreid_fast import ops
        >>> nearest = ops.nearest(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 4.0], [0.0, 2.0]]), k=2)
        >>> nearest.indices
        tensor([[1, 0]])
        >>> nearest.distances
        tensor([[1., 3.]])
    """
    NEAREST_ARGUMENTS.check(query=query, gallery=gallery, k=k, metric=metric)
    require_finite("nearest", query=query, gallery=gallery)
    keys, indices = run(NEAREST, query.detach(), gallery.detach(), k, metric == "cosine")
    match metric:
        case "cosine":
            return Nearest((1 + keys).clamp_(min=0), indices)
        case "euclidean":
            return Nearest(keys.sqrt(), indices)
        case _:
            return Nearest(keys, indices)


def nearest_block(block: Tensor, k: int) -> Nearest:
    """Find the k smallest entries of every row of a block of distances.

    Args:
        block: (Q, G) float32 distances without NaN; any strides.
        k: 1 to `MAX_NEAREST` (1000), at most G.

    Raises:
        AutoReIDError: a wrong shape or dtype, or k out of range.

    Examples:
        >>> import torch
        >>> from autoreid_fast import ops
        >>> ops.nearest_block(torch.tensor([[3.0, 1.0, 2.0]]), k=2).indices
        tensor([[1, 2]])
    """
    NEAREST_BLOCK_ARGUMENTS.check(block=block, k=k)
    return Nearest(*run(NEAREST_BLOCK, block.detach(), k))
