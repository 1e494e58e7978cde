"""k-reciprocal re-ranking (Zhong et al., CVPR 2017), exact and sparse: memory O(N k1), never N x N."""

import os
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops import contract
from autoreid_fast.ops.k_reciprocal import reference as twin

# csrc/k_reciprocal/k_reciprocal.h: what the CUDA kernels sort in shared memory
MAX_ROW_KEYS = 2048
MAX_SUM_KEYS = 4096


@dataclass(frozen=True)
class KReciprocal:
    """Q queries and G gallery images encoded by their k-reciprocal neighbours; `block` gives the distances.

    Images are numbered 0..Q-1 (queries), then Q..N-1 (gallery). V is Zhong's Gaussian-weighted encoding after
    local query expansion, (N, N) with mostly zeros; each row sums to 1.
    """

    queries: Tensor
    """(Q, D) float32."""
    gallery: Tensor
    """(G, D) float32."""
    farthest: Tensor
    """(Q,) float32: squared distance of each query to the image farthest from it."""
    offsets: Tensor
    """(Q + 1,) int64: the queries' rows of V are entries offsets[i] to offsets[i + 1] of the next two."""
    columns: Tensor
    """int32 image, ascending in a row."""
    values: Tensor
    """float32."""
    inverse_offsets: Tensor
    """(N + 1,) int64: the gallery's rows of V by column, entries of the next two."""
    inverse_rows: Tensor
    """int32 gallery index from 0 on, ascending in a column."""
    inverse_values: Tensor
    """float32."""
    lambda_value: float

    def block(self, start: int, stop: int) -> Tensor:
        """(stop - start, G) float32 final distances of the queries start..stop-1 to the whole gallery.

        On the CPU every entry is the same, to the bit, for any block and any number of threads.

        Raises:
            AutoReIDError: a range that is empty or not within 0..Q.
        """
        if not 0 <= start < stop <= len(self.queries):
            raise AutoReIDError(
                f"k_reciprocal: queries {start} to {stop} asked for; there are {len(self.queries)}, "
                "and a block has at least one"
            )
        arguments = (
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
        return _run("block", *arguments)


def k_reciprocal_encode(
    query_features: Tensor,
    gallery_features: Tensor,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
) -> KReciprocal:
    """Encode queries and gallery for `KReciprocal.block`, which computes the final distances.

    As Zhong's code has it: d is the squared Euclidean distance; every image's neighbours are itself and the
    others by d, equal ones by index (queries first). R(p, k) holds those of p's k nearest (and p) that have p
    among their k nearest. R*(p) is R(p, k1) with every R(q, k1 / 2), q in R(p, k1), of which more than two
    thirds lie in R(p, k1). V_p,g = exp(-d(p, g) / max_h d(p, h)) for g in R*(p), else 0, scaled to sum 1;
    then V_p becomes the mean V of p's k2 nearest, p being the first of them. Details, and where other codes
    differ: `docs/guide/re-ranking.md`.

    Args:
        query_features: (Q, D) float32, float16, bfloat16 or float64, computed in float32. Cosine distance:
            normalise the features first, which gives d = 2 - 2 cos.
        gallery_features: (G, D) of the same dtype and on the same device.
        k1: neighbours looked at; lists end where the images do, so k1 may exceed their number.
        k2: images averaged by local query expansion; 1: none. On CUDA k1 up to 61, and k2 up to 16 with
            k1 = 20, run by native kernels; beyond, these steps are the twin's.
        lambda_value: share of the original distance in the final one, 0 to 1.

    Raises:
        AutoReIDError: a wrong shape, dtype, device or parameter; features that are not finite or too large.
    """
    _check(query_features, gallery_features, k1, k2, lambda_value)
    features = torch.cat([query_features.detach().float(), gallery_features.detach().float()])
    total, queries = len(features), len(query_features)
    if not (2 * torch.linalg.vector_norm(features, dim=1).amax()).square().isfinite():
        raise AutoReIDError(
            "k_reciprocal: features are not finite, or so large that squared distances overflow float32"
        )
    neighbors, farthest = _run("neighbors", features, min(max(k1 + 1, k2), total))
    longest = (k1 + 1) * (1 + twin.half_of(k1))
    in_twin = features.is_cuda and (longest > MAX_ROW_KEYS or k2 * longest > MAX_SUM_KEYS)
    with contract.backend("reference") if in_twin else nullcontext():
        encoded = _run("rows", features, neighbors, farthest, k1)
        offsets, columns, values = _run("expand", *encoded, neighbors, k2)
    inverse_offsets, inverse_rows, inverse_values = _run("invert", offsets, columns, values, queries)
    end = int(offsets[queries])
    return KReciprocal(
        queries=features[:queries],
        gallery=features[queries:],
        farthest=farthest[:queries],
        offsets=offsets[: queries + 1].clone(),  # clones, to let the gallery's rows go
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
    """(Q, G) float32 final distances: lambda d / max d + (1 - lambda) Jaccard, as a dense array.

    Arguments and errors as `k_reciprocal_encode` has them, which with `KReciprocal.block` gives the same
    distances block by block.

    Raises:
        AutoReIDError: also where the array is larger than the memory of the machine.
    """
    _check(query_features, gallery_features, k1, k2, lambda_value)
    size = 4 * query_features.shape[0] * gallery_features.shape[0]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if query_features.device.type == "cpu" and size > memory:
        raise AutoReIDError(
            f"k_reciprocal: the dense result has {size / 2**30:.1f} GiB, the machine {memory / 2**30:.1f}; "
            "use k_reciprocal_encode and its blocks"
        )
    encoding = k_reciprocal_encode(query_features, gallery_features, k1, k2, lambda_value)
    return encoding.block(0, len(query_features))


def _run(step: str, *arguments: Any) -> Any:
    if contract.reference_forced():
        return getattr(twin, step)(*arguments)
    return getattr(torch.ops.autoreid_fast, f"k_reciprocal_{step}")(*arguments)


def _check(query: Tensor, gallery: Tensor, k1: int, k2: int, lambda_value: float) -> None:
    for name, features in (("query", query), ("gallery", gallery)):
        if features.ndim != 2 or 0 in features.shape:
            raise AutoReIDError(
                f"k_reciprocal: {name}_features have shape {tuple(features.shape)}; expected (images, D), "
                "at least one of each"
            )
        if not features.is_floating_point():
            raise AutoReIDError(
                f"k_reciprocal: {name}_features are {features.dtype}; expected a floating type"
            )
    if query.shape[1] != gallery.shape[1]:
        raise AutoReIDError(
            f"k_reciprocal: query_features have {query.shape[1]} columns, "
            f"gallery_features {gallery.shape[1]}; both come from one network"
        )
    if query.device != gallery.device:
        raise AutoReIDError(
            f"k_reciprocal: query_features are on {query.device}, gallery_features on {gallery.device}"
        )
    for name, value in (("k1", k1), ("k2", k2)):
        if value < 1:
            raise AutoReIDError(f"k_reciprocal: {name} is {value}; it is at least 1")
    if not 0 <= lambda_value <= 1:
        raise AutoReIDError(f"k_reciprocal: lambda_value is {lambda_value}; it is from 0 to 1")


def _fake_neighbors(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    total = features.shape[0]
    return features.new_empty((total, count), dtype=torch.int32), features.new_empty((total,))


def _fake_sparse(offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    entries = torch.library.get_ctx().new_dynamic_size()
    return (
        offsets,
        offsets.new_empty((entries,), dtype=torch.int32),
        offsets.new_empty((entries,), dtype=torch.float32),
    )


def _fake_rows(
    features: Tensor, neighbors: Tensor, farthest: Tensor, k1: int
) -> tuple[Tensor, Tensor, Tensor]:
    offsets = features.new_empty((features.shape[0] + 1,), dtype=torch.int64)
    return _fake_sparse(offsets)


def _fake_expand(
    offsets: Tensor, columns: Tensor, values: Tensor, neighbors: Tensor, k2: int
) -> tuple[Tensor, Tensor, Tensor]:
    return _fake_sparse(torch.empty_like(offsets))


def _fake_invert(
    offsets: Tensor, columns: Tensor, values: Tensor, first: int
) -> tuple[Tensor, Tensor, Tensor]:
    return _fake_sparse(torch.empty_like(offsets))


def _fake_block(queries: Tensor, gallery: Tensor, *rest: object) -> Tensor:
    return queries.new_empty((queries.shape[0], gallery.shape[0]))


_SPARSE = "(Tensor offsets, Tensor columns, Tensor values)"

contract.define(
    "k_reciprocal_neighbors",
    "(Tensor features, int count) -> (Tensor neighbors, Tensor farthest)",
    twin.neighbors,
    _fake_neighbors,
)
contract.define(
    "k_reciprocal_rows",
    f"(Tensor features, Tensor neighbors, Tensor farthest, int k1) -> {_SPARSE}",
    twin.rows,
    _fake_rows,
)
contract.define(
    "k_reciprocal_expand",
    f"(Tensor offsets, Tensor columns, Tensor values, Tensor neighbors, int k2) -> {_SPARSE}",
    twin.expand,
    _fake_expand,
)
contract.define(
    "k_reciprocal_invert",
    f"(Tensor offsets, Tensor columns, Tensor values, int first) -> {_SPARSE}",
    twin.invert,
    _fake_invert,
)
contract.define(
    "k_reciprocal_block",
    "(Tensor queries, Tensor gallery, Tensor farthest, Tensor offsets, Tensor columns, Tensor values, "
    "Tensor inverse_offsets, Tensor inverse_rows, Tensor inverse_values, float lambda_value) -> Tensor",
    twin.block,
    _fake_block,
)
