"""k-reciprocal re-ranking: the final distances; at MSMT17's size, where they take 4 GB, their evaluation."""

from collections.abc import Callable

import torch
from torch import Tensor

import autoreid_fast
from autoreid_fast import RerankConfig, ops

from .harness.case import Case, Memory, Variant, Work
from .harness.support import galleries, gemm
from .harness.support.peers import load_file, package_file

K1, K2, LAMBDA = 20, 6, 0.3
BLOCK = 256
GAP = 1e-5
"""Least gap between squared distances about 2, whose float32 errors stay below 1e-6."""


def inputs(variant: Variant) -> tuple[Tensor, ...]:
    """Query (Q, D) and gallery (G, D) features; for an evaluation the labels as well.

    Distances can be compared only where every implementation finds the same neighbours, so rounding must not
    decide which images are among the nearest: see `settled`.
    """
    query, gallery, dimensions = (variant.sizes[name] for name in "QGD")
    if variant.large == "msmt17":
        labels = galleries.labels(variant)
        features = galleries.features(torch.cat([labels.query_pids, labels.gallery_pids]), dimensions)
        return features[:query].clone(), features[query:].clone(), *labels
    pids = torch.randint(1, max(2, gallery // 25), (query + gallery,))
    features = settled(galleries.features(pids, dimensions))
    return features[:query].clone(), features[query:].clone()


def settled(images: Tensor) -> Tensor:
    """The unit vectors; those whose nearest neighbours float32 errors could change are drawn again."""
    sizes = torch.tensor([K2, round(K1 / 2) + 1, K1 + 1])
    while True:
        nearest = [
            (2 - 2 * rows @ images.T).topk(int(sizes.max()) + 1, largest=False, sorted=True).values
            for rows in images.split(BLOCK)
        ]
        squared = torch.cat(nearest)
        undecided = ((squared[:, sizes] - squared[:, sizes - 1]) < GAP).any(1)
        if not undecided.any():
            return images
        redrawn = torch.randn(int(undecided.sum()), images.shape[1])
        images[undecided] = torch.nn.functional.normalize(redrawn)


def ours(query: Tensor, gallery: Tensor, *labels: Tensor) -> Tensor:
    """The final distances, or with labels the scores after re-ranking."""
    if not labels:
        return ops.k_reciprocal(query, gallery, K1, K2, LAMBDA)
    rerank = RerankConfig(k1=K1, k2=K2, lambda_value=LAMBDA)
    evaluation = autoreid_fast.evaluate(query, gallery, *labels, rerank=rerank)
    return torch.tensor([*evaluation.cmc.values(), evaluation.mAP, evaluation.mINP], dtype=torch.float64)


def reference(query: Tensor, gallery: Tensor, *labels: Tensor) -> Tensor:
    """The same with the references."""
    with ops.backend("reference"):
        return ours(query.float(), gallery.float(), *labels)


def torchreid() -> Callable[..., Tensor]:
    """torchreid's ``re_ranking``, given Euclidean distances.

    It squares its input, as Zhong's code does with plain distances. torchreid itself passes it squared
    distances, so that they end in the fourth power.
    """
    rerank = load_file(package_file("torchreid", "reid/utils/rerank.py")).re_ranking

    def distances(left: Tensor, right: Tensor) -> Tensor:
        norms = left.square().sum(1, keepdim=True) + right.square().sum(1)
        return norms.addmm_(left, right.T, alpha=-2).clamp_(min=0).sqrt_()

    def peer(query: Tensor, gallery: Tensor, *labels: Tensor) -> Tensor:
        pairs = ((query, gallery), (query, query), (gallery, gallery))
        return torch.from_numpy(rerank(*(distances(*pair).numpy() for pair in pairs), K1, K2, LAMBDA))

    return peer


def work(variant: Variant) -> Work:
    """Features read once, distances written; every pair of images once, one multiply-add per dimension."""
    query, gallery, dimensions = (variant.sizes[name] for name in "QGD")
    images = query + gallery
    moved = images * dimensions * 4 + query * gallery * 4
    return Work(bytes=moved, flops=images * images * dimensions)


def memory(variant: Variant) -> Memory:
    """Matrices of all pairs of images."""
    images = variant.sizes["Q"] + variant.sizes["G"]
    parts = "distances given and joined, weights, int64 and int32 order"
    return Memory(24 * images**2, f"24 bytes for each of {images:,} x {images:,} pairs: {parts}")


def _all_pairs(product: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def bound(query: Tensor, gallery: Tensor, *labels: Tensor) -> Tensor:
        images = torch.cat([query, gallery])
        return product(images, images)

    return bound


CASE = Case(
    name="k_reciprocal",
    variants=(
        Variant({"Q": 300, "G": 1700, "D": 512}),
        Variant({"Q": 3368, "G": 15913, "D": 512}, large="market1501"),
        Variant({"Q": 300, "G": 1700, "D": 512}, device="cuda"),
        *(
            Variant(
                {"Q": 11659, "G": 82161, "D": 512, "cameras": 15},
                device=device,
                large="msmt17",
                tolerance=1e-4,
            )
            for device in ("cpu", "cuda")
        ),
    ),
    inputs=inputs,
    ours=ours,
    reference=reference,
    work=work,
    tolerance=1e-5,
    peers={"torchreid": torchreid},
    bounds={"torch.mm": _all_pairs(gemm.mm), "F.linear": _all_pairs(gemm.linear)},
    memory={"torchreid": memory},
    compiles=False,
    host=frozenset({"torchreid"}),
)
