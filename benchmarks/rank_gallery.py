"""Evaluation of a gallery from its features: CMC, mAP and mINP under the Market-1501 protocol."""

import importlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

import autoreid_fast
from autoreid_fast import ops
from autoreid_fast.errors import AutoReIDError

from .harness.case import Case, Memory, Variant, Work
from .harness.support import galleries, gemm
from .harness.support.peers import cython_module, load_file, package_file

RANKS = (1, 5, 10)
SORT_BLOCK = 1024
"""Queries per block of `sorted_in_torch`: some 3 GB at MSMT17's size."""
GAP = 2e-6
"""Least gap between squared distances of unit vectors; float32 errors reach 1e-6."""

Scores = tuple[Tensor | None, ...]
"""Fraction of queries with a match at each of ``RANKS``, mAP, mINP; None where a peer does not compute it."""


def inputs(variant: Variant) -> tuple[Tensor, ...]:
    """Query (Q, D) and gallery (G, D) features, their identities, and their cameras if there are any.

    Scores can agree within 1e-6 only where rounding does not decide the rank of a match: see `decided`. At
    MSMT17's size nearly every query would have to be moved, many times over; its variant has a larger
    tolerance instead.
    """
    labels = galleries.labels(variant)
    count = len(labels.query_pids)
    features = galleries.features(torch.cat([labels.query_pids, labels.gallery_pids]), variant.sizes["D"])
    query, gallery = features[:count].clone(), features[count:].clone()
    if variant.large != "msmt17":
        query = decided(query, gallery, labels)
    return query, gallery, *(labels if variant.sizes["cameras"] else labels[:2])


def decided(query: Tensor, gallery: Tensor, labels: galleries.Labels) -> Tensor:
    """The queries, moved slightly where another entry is within `GAP` of one of their identity.

    Computed in float64 from the inputs, independently of all candidates. Queries move in a random direction
    and towards their identity, which separates its images from others; purely random moves need hundreds of
    rounds.
    """
    query, exact = query.clone(), gallery.double()
    squares = exact.square().sum(1)
    centres = torch.zeros(int(labels.query_pids.max()) + 1, query.shape[1])
    known = (labels.gallery_pids > 0) & (labels.gallery_pids < len(centres))
    centres.index_add_(0, labels.gallery_pids[known], gallery[known])
    centres = torch.nn.functional.normalize(centres)
    undecided = torch.arange(len(query))
    while len(undecided):
        still_undecided = []
        for rows in undecided.split(128):
            order = (squares - 2 * query[rows].double() @ exact.T).sort(dim=1)
            close = order.values.diff(dim=1) < GAP
            near = torch.nn.functional.pad(close, (1, 0)) | torch.nn.functional.pad(close, (0, 1))
            same = labels.gallery_pids[order.indices] == labels.query_pids[rows, None]
            still_undecided.append(rows[(near & same).any(dim=1)])
        undecided = torch.cat(still_undecided)
        noise = torch.nn.functional.normalize(torch.randn(len(undecided), query.shape[1]))
        moved = query[undecided] + 0.1 * centres[labels.query_pids[undecided]] + 0.1 * noise
        query[undecided] = torch.nn.functional.normalize(moved)
    return query


def ours(*inputs: Tensor) -> Scores:
    """The evaluation of `autoreid_fast.evaluate`."""
    evaluation = autoreid_fast.evaluate(*inputs, ranks=RANKS)
    return _scores(*(evaluation.cmc[rank] for rank in RANKS), evaluation.mAP, evaluation.mINP)


def reference(query: Tensor, gallery: Tensor, *labels: Tensor) -> Scores:
    """The same with the references."""
    with ops.backend("reference"):
        return ours(query.float(), gallery.float(), *labels)


def sorted_in_torch() -> Callable[..., Scores]:
    """The usual code in torch, for any device: blocks of distances, `torch.sort`, sums along the ranks."""

    def peer(*inputs: Tensor) -> Scores:
        query, gallery, query_pids, gallery_pids, query_cams, gallery_cams = _known(*inputs)
        norms = gallery.square().sum(1)
        parts = []
        for rows in torch.arange(len(query), device=query.device).split(SORT_BLOCK):
            squares = query[rows].square().sum(1, keepdim=True) + norms
            order = squares.addmm_(query[rows], gallery.T, alpha=-2).sort(dim=1).indices
            same = gallery_pids[order] == query_pids[rows, None]
            excluded = same & (gallery_cams[order] == query_cams[rows, None])
            matches, rank = same & ~excluded, (~excluded).cumsum(1)
            count = matches.sum(1)
            precision = (
                torch.where(matches, matches.cumsum(1) / rank, 0.0).sum(1, dtype=torch.float64) / count
            )
            first = torch.where(matches, rank, rank.shape[1] + 1).amin(1)
            penalty = count / torch.where(matches, rank, 0).amax(1)
            parts.append(
                torch.stack([*(first <= limit for limit in RANKS), precision, penalty], 1)[count > 0]
            )
        return tuple(torch.cat(parts).mean(0))

    return peer


def fastreid() -> Callable[..., Scores]:
    """fast-reid's Cython evaluation of the distance matrix, built as by its ``setup.py``."""
    evaluate = cython_module("fastreid", "evaluation/rank_cylib/rank_cy.pyx").evaluate_cy

    def peer(*inputs: Tensor) -> Scores:
        query, gallery, *labels = _without_junk(*inputs)
        norms = query.square().sum(1, keepdim=True) + gallery.square().sum(1)
        distances = norms.addmm_(query, gallery.T, alpha=-2)
        cmc, average_precision, inverse_penalty = evaluate(distances.numpy(), *labels, max(RANKS))
        means = (np.mean(values, dtype=np.float64) for values in (average_precision, inverse_penalty))
        return _scores(*(cmc[rank - 1] for rank in RANKS), *means)

    return peer


def torchreid() -> Callable[..., Scores]:
    """torchreid's evaluation in Python, because its release on PyPI lacks the Cython source. No mINP."""
    ranker = "torchreid.reid.metrics.rank_cylib.rank_cy"
    evaluate = load_file(package_file("torchreid", "reid/metrics/rank.py"), without=[ranker]).evaluate_rank
    distance = load_file(package_file("torchreid", "reid/metrics/distance.py")).compute_distance_matrix

    def peer(*inputs: Tensor) -> Scores:
        query, gallery, *labels = _without_junk(*inputs)
        cmc, mean = evaluate(distance(query, gallery).numpy(), *labels, max_rank=max(RANKS))
        return *_scores(*(cmc[rank - 1] for rank in RANKS), mean), None

    return peer


def metric_learning() -> Callable[..., Scores]:
    """pytorch-metric-learning's calculator on faiss: rank 1 and mAP, without cameras."""
    importlib.import_module("faiss")  # the package imports without it and fails when called
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

    names = ("precision_at_1", "mean_average_precision")
    calculator = AccuracyCalculator(include=names, device=torch.device("cpu"))

    def peer(*inputs: Tensor) -> Scores:
        if len(inputs) > 4:
            raise AutoReIDError("no protocol with cameras")
        query, gallery, query_pids, gallery_pids = inputs
        known = gallery_pids != -1
        accuracy = calculator.get_accuracy(query, query_pids, gallery[known], gallery_pids[known])
        rank1, mean = _scores(*(accuracy[name] for name in names))
        return rank1, None, None, mean, None

    return peer


def sorting(query: Tensor, gallery: Tensor, *labels: Tensor) -> Tensor:
    """All dot products as one matrix, and its argsort: the least work of every evaluator that sorts."""
    order = np.argsort(torch.mm(query, gallery.T).numpy(), axis=1)
    return torch.from_numpy(order[:, 0].copy())


def _known(
    query: Tensor,
    gallery: Tensor,
    query_pids: Tensor,
    gallery_pids: Tensor,
    query_cams: Tensor | None = None,
    gallery_cams: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """The inputs as readers of other tools give them: without junk, and always with cameras."""
    known = gallery_pids != -1
    if query_cams is None or gallery_cams is None:
        query_cams, gallery_cams = torch.zeros_like(query_pids), torch.ones_like(gallery_pids)
    return query, gallery[known], query_pids, gallery_pids[known], query_cams, gallery_cams[known]


def _without_junk(*inputs: Tensor) -> tuple:
    """`_known` with labels in NumPy."""
    query, gallery, *labels = _known(*inputs)
    return query, gallery, *(label.numpy() for label in labels)


def _scores(*values: float) -> Scores:
    return tuple(torch.tensor(float(value), dtype=torch.float64) for value in values)


def work(variant: Variant) -> Work:
    """Features read once; one multiply-add (2 FLOPs) per dimension and pair."""
    query, gallery, dimensions = (variant.sizes[name] for name in "QGD")
    return Work(bytes=(query + gallery) * dimensions * 4, flops=2 * query * gallery * dimensions)


def memory(bytes_per_pair: int, parts: str) -> Callable[[Variant], Memory]:
    """Memory of a candidate with the full matrix."""

    def needed(variant: Variant) -> Memory:
        query, gallery = variant.sizes["Q"], variant.sizes["G"]
        pairs = f"for each of {query:,} x {gallery:,} pairs"
        return Memory(bytes_per_pair * query * gallery, f"{bytes_per_pair} bytes {pairs}: {parts}")

    return needed


SORTED = "float32 distance, int64 order"

CASE = Case(
    name="rank_gallery",
    variants=(
        Variant({"Q": 200, "G": 4000, "D": 512, "cameras": 6}),
        Variant({"Q": 200, "G": 4000, "D": 512, "cameras": 0}),
        Variant({"Q": 200, "G": 4000, "D": 512, "cameras": 6}, device="cuda"),
        Variant({"Q": 3368, "G": 19732, "D": 512, "cameras": 6}, large="market1501"),
        Variant({"Q": 3368, "G": 19732, "D": 512, "cameras": 0}, large="market1501"),
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
    tolerance=1e-6,
    peers={
        "torch.sort": sorted_in_torch,
        "fastreid": fastreid,
        "torchreid": torchreid,
        "pytorch-metric-learning": metric_learning,
    },
    bounds={
        "torch.mm": lambda query, gallery, *labels: gemm.mm(query, gallery),
        "F.linear": lambda query, gallery, *labels: gemm.linear(query, gallery),
        "numpy.argsort": sorting,
    },
    memory={
        "fastreid": memory(12, SORTED),
        "torchreid": memory(21, f"{SORTED}, int64 identity, and its matches"),
        "pytorch-metric-learning": memory(60, "neighbours, labels, masks, counts and precisions"),
        "numpy.argsort": memory(12, SORTED),
    },
    compiles=False,
    host=frozenset({"fastreid", "torchreid", "pytorch-metric-learning", "numpy.argsort"}),
    about=galleries.about,
)
