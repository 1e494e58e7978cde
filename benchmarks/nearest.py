"""Exact search for the 100 nearest gallery entries of every query."""

import importlib
from collections.abc import Callable

import torch
from torch import Tensor

from autoreid_fast import ops

from .harness.case import Case, Memory, Variant, Work
from .harness.support import galleries, gemm

COUNT = 100


def inputs(variant: Variant) -> tuple[Tensor, Tensor]:
    """Query (Q, D) and gallery (G, D) features: unit vectors, 25 images per identity."""
    query, gallery, dimensions = (variant.sizes[name] for name in "QGD")
    pids = torch.randint(1, max(2, gallery // 25), (query + gallery,))
    features = galleries.features(pids, dimensions)
    return features[:query].clone(), features[query:].clone()


def ours(query: Tensor, gallery: Tensor) -> Tensor:
    """The distances."""
    return ops.nearest(query, gallery, COUNT, metric="sqeuclidean").distances


def reference(query: Tensor, gallery: Tensor) -> Tensor:
    """The same with the references."""
    with ops.backend("reference"):
        return ours(query.float(), gallery.float())


def faiss() -> Callable[[Tensor, Tensor], Tensor]:
    """Exact search of faiss, with as many threads as torch."""
    faiss = importlib.import_module("faiss")

    def peer(query: Tensor, gallery: Tensor) -> Tensor:
        faiss.omp_set_num_threads(torch.get_num_threads())
        return torch.from_numpy(faiss.knn(query.cpu().numpy(), gallery.cpu().numpy(), COUNT)[0])

    return peer


def full_matrix() -> Callable[[Tensor, Tensor], Tensor]:
    """The usual code in torch: the full matrix, then ``topk``."""

    def peer(query: Tensor, gallery: Tensor) -> Tensor:
        norms = query.square().sum(1, keepdim=True) + gallery.square().sum(1)
        return norms.addmm_(query, gallery.T, alpha=-2).topk(COUNT, dim=1, largest=False).values

    return peer


def work(variant: Variant) -> Work:
    """Features read once, distances and indices written; 2 FLOPs per pair and dimension."""
    query, gallery, dimensions = (variant.sizes[name] for name in "QGD")
    moved = (query + gallery) * dimensions * 4 + query * COUNT * 12
    return Work(bytes=moved, flops=2 * query * gallery * dimensions)


def memory(variant: Variant) -> Memory:
    """The full matrix."""
    query, gallery = variant.sizes["Q"], variant.sizes["G"]
    return Memory(4 * query * gallery, f"one float32 for each of {query:,} x {gallery:,} pairs")


SIZES = {"Q": 200, "G": 4000, "D": 512}

CASE = Case(
    name="nearest",
    variants=(
        Variant(SIZES),
        Variant(SIZES, device="cuda"),
        Variant({"Q": 11659, "G": 82161, "D": 512}, large="msmt17"),
        Variant({"Q": 11659, "G": 82161, "D": 512}, device="cuda", large="msmt17"),
    ),
    inputs=inputs,
    ours=ours,
    reference=reference,
    work=work,
    tolerance=1e-6,
    peers={"faiss-cpu": faiss, "torch": full_matrix},
    bounds={"torch.mm": gemm.mm, "F.linear": gemm.linear},
    memory={"torch": memory},
    compiles=False,
    host=frozenset({"faiss-cpu"}),
)
