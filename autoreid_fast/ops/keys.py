"""Keys by which the gallery ops compare a query with the gallery entries.

A key is a float32: the squared Euclidean distance for the metrics `euclidean` and `sqeuclidean` (a root in
float32 would merge distinct distances into ties), minus the cosine similarity for `cosine`. Equal keys are
ordered by gallery index. The references compute keys in float64 and round once. The native kernels compute a
key from one chain of fused multiply-adds, so it depends on the two vectors only, not on block, shard, thread
count, instruction set or device, and equal vectors tie exactly.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError

METRICS = ("euclidean", "sqeuclidean", "cosine")

LARGEST_NORM = 9e18
"""Four times its square is still finite in float32."""
_BLOCK = 256  # queries per block; a key must come from the same block wherever it is computed


def key_blocks(query: Tensor, gallery: Tensor, cosine: bool) -> Iterator[tuple[int, Tensor]]:
    """Yield blocks of reference keys: the first query of the block, and its (rows, G) float32 keys.

    A zero vector has cosine similarity 0 to every vector.

    Args:
        query: (Q, D).
        gallery: (G, D).
        cosine: whether keys are minus cosine similarities instead of squared distances.
    """
    gallery = gallery.double()
    if cosine:
        gallery = torch.nn.functional.normalize(gallery)
    squares = gallery.square().sum(1)
    for start in range(0, len(query), _BLOCK):
        rows = query[start : start + _BLOCK].double()
        if cosine:
            yield start, (torch.nn.functional.normalize(rows) @ gallery.T).neg_().float()
        else:
            squared = rows.square().sum(1, keepdim=True) + squares - 2 * (rows @ gallery.T)
            yield start, squared.clamp_(min=0).float()


def check_features(op: str, query: Tensor, gallery: Tensor, metric: str) -> bool:
    """Check the features and the metric; return whether the metric is `cosine`.

    Raises:
        AutoReIDError: shapes, dtypes or devices do not match, the metric is unknown, or features are not
            finite or too large to be squared.
    """
    if metric not in METRICS:
        raise AutoReIDError(f"{op}: metric is {metric!r}; it is one of {', '.join(METRICS)}")
    for features, name in ((query, "query"), (gallery, "gallery")):
        if features.ndim != 2 or features.shape[1] == 0:
            raise AutoReIDError(f"{op}: {name} has shape {tuple(features.shape)}; expected (N, D), D >= 1")
        if features.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise AutoReIDError(
                f"{op}: {name} is {features.dtype}; not float32, float16 or bfloat16: call {name}.float()"
            )
    if query.shape[1] != gallery.shape[1]:
        raise AutoReIDError(f"{op}: query has {query.shape[1]} columns and gallery {gallery.shape[1]}")
    if query.dtype != gallery.dtype:
        raise AutoReIDError(f"{op}: query is {query.dtype} and gallery {gallery.dtype}; cast one")
    if query.device != gallery.device:
        raise AutoReIDError(f"{op}: query is on {query.device} and gallery on {gallery.device}")
    require_finite(op, "query", query)
    require_finite(op, "gallery", gallery)
    return metric == "cosine"


def require_finite(op: str, name: str, features: Tensor) -> None:
    """Raise where a row of (N, D) ``features`` is not finite or too large to be squared in float32.

    Not under `torch.compile`, which cannot trace it.

    Raises:
        AutoReIDError: it names the first such row.
    """
    if torch.compiler.is_compiling():
        return
    norms = torch.linalg.vector_norm(features, dim=1, dtype=torch.float32)
    wrong = ~(norms < LARGEST_NORM)  # also true for NaN
    if wrong.any():
        raise AutoReIDError(
            f"{op}: {name} has NaN, infinite or too large values, first in row {int(wrong.nonzero()[0])}: "
            "extract the features again"
        )
