"""The k nearest gallery entries of every query, exact, in bounded memory; ties by gallery index.

Keys are those of `ops.match_keys` and `ops.count_closer` (`ops.keys`), so that all agree on every order. Not
differentiable.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops import contract
from autoreid_fast.ops.keys import check_features
from autoreid_fast.ops.nearest import reference

MAX_NEAREST = 1000


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
        >>> found = ops.nearest(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 4.0], [0.0, 2.0]]), k=2)
        >>> found.indices
        tensor([[1, 0]])
        >>> found.distances
        tensor([[1., 3.]])
    """
    cosine = check_features("nearest", query, gallery, metric)
    _check_k("nearest", k, len(gallery))
    run = reference.nearest if contract.reference_forced() else torch.ops.autoreid_fast.nearest
    keys, indices = run(query.detach(), gallery.detach(), k, cosine)
    if cosine:
        return Nearest((1 + keys).clamp_(min=0), indices)
    return Nearest(keys.sqrt() if metric == "euclidean" else keys, indices)


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
    if block.ndim != 2 or block.dtype != torch.float32:
        raise AutoReIDError(
            f"nearest_block: block is {tuple(block.shape)} {block.dtype}; expected (Q, G) torch.float32"
        )
    _check_k("nearest_block", k, block.shape[1])
    run = reference.nearest_block if contract.reference_forced() else torch.ops.autoreid_fast.nearest_block
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
    reference.nearest,
    _fake_nearest,
)
contract.define(
    "nearest_block",
    "(Tensor block, int k) -> (Tensor keys, Tensor indices)",
    reference.nearest_block,
    _fake_nearest_block,
)
