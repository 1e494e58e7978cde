"""k-reciprocal re-ranking (Zhong et al., CVPR 2017), exact and sparse: memory O(N k1), never (N, N)."""

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops.contract import run
from autoreid_fast.ops.k_reciprocal.reference import half_of
from autoreid_fast.ops.k_reciprocal.spec import (
    ARGUMENTS,
    BLOCK,
    ENCODE_ARGUMENTS,
    EXPAND,
    INVERT,
    NEIGHBORS,
    ROWS,
)
from autoreid_fast.ops.keys import require_finite

__all__ = ["KReciprocal", "k_reciprocal", "k_reciprocal_encode"]

# csrc/k_reciprocal/k_reciprocal.h: how many keys the CUDA kernels sort in shared memory
MAX_ROW_KEYS = 2048
MAX_SUM_KEYS = 4096


@dataclass(frozen=True)
class KReciprocal:
    """Q queries and G gallery images encoded by their k-reciprocal neighbours; `block` gives the distances.

    Images are numbered 0 to Q - 1 (queries), then Q to N - 1 (gallery). V is Zhong's Gaussian-weighted
    encoding after local query expansion: (N, N), mostly zeros; each row sums to 1.
    """

    queries: Tensor
    """(Q, D) float32."""
    gallery: Tensor
    """(G, D) float32."""
    farthest: Tensor
    """(Q,) float32 squared distance from each query to the image farthest from it."""
    offsets: Tensor
    """(Q + 1,) int64; row i of V has the entries offsets[i] to offsets[i + 1] - 1 of the next two."""
    columns: Tensor
    """int32 image numbers, ascending within a row."""
    values: Tensor
    """float32."""
    inverse_offsets: Tensor
    """(N + 1,) int64 offsets of the gallery's rows of V by column, into the next two."""
    inverse_rows: Tensor
    """int32 gallery indices from 0, ascending within a column."""
    inverse_values: Tensor
    """float32."""
    lambda_value: float

    def block(self, start: int, stop: int) -> Tensor:
        """Compute the final distances of the queries ``start`` to ``stop`` - 1 to the whole gallery.

        On the CPU every entry is bit for bit the same for any block and any number of threads.

        Returns:
            (stop - start, G) float32.

        Raises:
            AutoReIDError: the range is empty or exceeds 0 to Q.
        """
        if not 0 <= start < stop <= len(self.queries):
            raise AutoReIDError(
                f"KReciprocal.block: `start`, `stop` are {start}, {stop}; expected 0 <= start < stop <= "
                f"{len(self.queries)}, the number of queries"
            )
        distances: Tensor = run(
            BLOCK,
            self.queries[start:stop],
            self.gallery,
            self.farthest[start:stop],
            self.offsets[start : stop + 1],
            self.columns,
            self.values,
            self.inverse_offsets,
            self.inverse_rows,
            self.inverse_values,
            self.lambda_value,
        )
        return distances


def k_reciprocal_encode(
    query_features: Tensor,
    gallery_features: Tensor,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
) -> KReciprocal:
    """Encode queries and gallery for `KReciprocal.block`, which computes the final distances.

    The definition is that of Zhong's code. d is the squared Euclidean distance. The neighbours of an image
    are itself and the others by d, equal ones by index (queries first). R(p, k) holds p and those of its k
    nearest that have p among their own k nearest. R*(p) is R(p, k1), joined with every R(q, k1 / 2), q in
    R(p, k1), of which more than two thirds lie in R(p, k1). V_p,g is exp(-d(p, g) / max_h d(p, h)) for g in
    R*(p) and 0 elsewhere, scaled to sum 1. Then V_p becomes the mean of V over the k2 nearest of p, p itself
    included. `docs/guide/re-ranking.md` has the details, and where other implementations differ.

    Args:
        query_features: (Q, D) float32, float16, bfloat16 or float64, computed in float32. For cosine
            distances normalise the features first, which gives d = 2 - 2 cos.
        gallery_features: (G, D) of the same dtype and on the same device.
        k1: neighbours tested for reciprocity; may exceed the number of images.
        k2: images averaged by local query expansion; 1 for none. On CUDA, native kernels run for k1 up to 61,
            and for k2 up to 16 with k1 = 20; beyond that these steps use their references.
        lambda_value: weight of the original distance in the final one, 0 to 1.

    Raises:
        AutoReIDError: a wrong shape, dtype, device or parameter, or features that are not finite.

    Examples:
        >>> import torch
        >>> from autoreid_fast import ops
        >>> encoding = ops.k_reciprocal_encode(torch.randn(10, 64), torch.randn(500, 64))
        >>> encoding.block(0, 4).shape
        torch.Size([4, 500])
    """
    ENCODE_ARGUMENTS.check(
        query_features=query_features,
        gallery_features=gallery_features,
        k1=k1,
        k2=k2,
        lambda_value=lambda_value,
    )
    query, gallery = query_features.detach().float(), gallery_features.detach().float()
    require_finite("k_reciprocal_encode", query_features=query, gallery_features=gallery)
    features = torch.cat([query, gallery])
    queries = len(query)
    neighbors, farthest = run(NEIGHBORS, features, min(max(k1 + 1, k2), len(features)))
    offsets, columns, values = _encoded_rows(features, neighbors, farthest, k1, k2)
    inverse_offsets, inverse_rows, inverse_values = run(INVERT, offsets, columns, values, queries)
    end = int(offsets[queries])
    return KReciprocal(
        queries=features[:queries],
        gallery=features[queries:],
        farthest=farthest[:queries],
        offsets=offsets[: queries + 1].clone(),  # clones free the memory of the gallery's rows
        columns=columns[:end].clone(),
        values=values[:end].clone(),
        inverse_offsets=inverse_offsets,
        inverse_rows=inverse_rows,
        inverse_values=inverse_values,
        lambda_value=lambda_value,
    )


def k_reciprocal(
    query_features: Tensor,
    gallery_features: Tensor,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
) -> Tensor:
    """Compute all final distances: lambda d / max d + (1 - lambda) Jaccard.

    `k_reciprocal_encode` with `KReciprocal.block` gives the same distances block by block, and documents the
    arguments.

    Args:
        query_features: (Q, D).
        gallery_features: (G, D).
        k1: neighbours tested for reciprocity.
        k2: images averaged by local query expansion.
        lambda_value: weight of the original distance in the final one, 0 to 1.

    Returns:
        (Q, G) float32.

    Raises:
        AutoReIDError: as `k_reciprocal_encode`, or the result is larger than the memory of the machine.

    Examples:
        >>> import torch
        >>> from autoreid_fast import ops
        >>> ops.k_reciprocal(torch.randn(3, 64), torch.randn(50, 64), k1=10, k2=3).shape
        torch.Size([3, 50])
    """
    ARGUMENTS.check(
        query_features=query_features,
        gallery_features=gallery_features,
        k1=k1,
        k2=k2,
        lambda_value=lambda_value,
    )
    _require_memory(query_features, gallery_features)
    query, gallery = query_features.detach().float(), gallery_features.detach().float()
    require_finite("k_reciprocal", query_features=query, gallery_features=gallery)
    return k_reciprocal_encode(query, gallery, k1, k2, lambda_value).block(0, len(query))


def _encoded_rows(
    features: Tensor, neighbors: Tensor, farthest: Tensor, k1: int, k2: int
) -> tuple[Tensor, Tensor, Tensor]:
    """V in CSR form: offsets, columns and values."""
    longest = (k1 + 1) * (1 + half_of(k1))
    if features.is_cuda and (longest > MAX_ROW_KEYS or k2 * longest > MAX_SUM_KEYS):
        encoded = ROWS.reference(features, neighbors, farthest, k1)
        expanded = EXPAND.reference(*encoded, neighbors, k2)
    else:
        encoded = run(ROWS, features, neighbors, farthest, k1)
        expanded = run(EXPAND, *encoded, neighbors, k2)
    offsets, columns, values = expanded
    return offsets, columns, values


def _require_memory(query: Tensor, gallery: Tensor) -> None:
    """Raise where the dense result exceeds the memory of the machine."""
    size = 4 * len(query) * len(gallery)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if query.device.type == "cpu" and size > memory:
        raise AutoReIDError(
            f"k_reciprocal: the result has {size / 2**30:.1f} GiB; expected at most the machine's "
            f"{memory / 2**30:.1f}: use k_reciprocal_encode and its blocks"
        )
