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
from autoreid_fast.ops.arguments import Choice, SameAs, TensorArgument
from autoreid_fast.ops.sampling import Draw

METRICS = ("euclidean", "sqeuclidean", "cosine")

DTYPES = (torch.float32, torch.float16, torch.bfloat16)

QUERY = TensorArgument("query", ("Q", "D"), DTYPES)
GALLERY = TensorArgument("gallery", ("G", "D"), SameAs("query"))
METRIC = Choice("metric", METRICS)

LARGEST_NORM = 9e18
"""Four times its square is still finite in float32."""
_BLOCK = 256
"""Queries per block of the references: a key must come from the same block wherever it is computed."""


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


def require_finite(function: str, **features: Tensor) -> None:
    """Raise where a row of features is not finite or too large to be squared in float32.

    Not under `torch.compile`, which cannot trace it.

    Args:
        function: name of the public function.
        features: (N, D) tensors by the names of the function's arguments.

    Raises:
        AutoReIDError: it names the argument and the first such row; or features of `torch.vmap`.
    """
    if torch.compiler.is_compiling():
        return
    for name, values in features.items():
        if torch._C._functorch.is_batchedtensor(values):
            raise AutoReIDError(
                f"{function}: `{name}` is a tensor of torch.vmap, whose values cannot be checked; expected a "
                "plain tensor: use a loop"
            )
        norms = torch.linalg.vector_norm(values, dim=1, dtype=torch.float32)
        wrong = ~(norms < LARGEST_NORM)  # also true for NaN
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise AutoReIDError(
                f"{function}: `{name}` has NaN, infinite or too large values in row {row}; expected finite "
                "features: extract them again"
            )


def sample_features(draw: Draw, metric: str) -> tuple[Tensor, Tensor]:
    """Query and gallery for samples of the ops: keys are exact in float32 and often tie."""
    queries, entries = draw.size(1, 12), draw.size(1, 150)
    if metric == "cosine":
        dim = draw.choice((1, 4, 16))  # norms of `_signs` are powers of 2
        return _signs(draw, queries, dim), _signs(draw, entries, dim)
    dim = draw.size(1, 40)
    return draw.whole(queries, dim), draw.whole(entries, dim)


def _signs(draw: Draw, count: int, dim: int) -> Tensor:
    """(count, dim) entries of 1 and -1."""
    return 2 * draw.whole(count, dim, high=1).ge(0).to(draw.dtype) - 1
