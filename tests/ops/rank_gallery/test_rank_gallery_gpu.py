"""The ops of `ops.rank_gallery` and `ops.nearest` on an NVIDIA GPU equal those on the CPU, bit for bit."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from autoreid_fast import ops
from autoreid_fast.evaluation.protocol import Labels, Metric, relevance_of
from autoreid_fast.evaluation.ranking import rank_distances, rank_gallery

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
METRICS: tuple[Metric, ...] = get_args(Metric)
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
SHAPES = [(1, 1, 1), (3, 700, 5), (130, 2000, 129), (300, 9000, 512)]


CUDA = torch.device("cuda")


def random_labels(num_query: int, num_gallery: int, people: int = 30) -> Labels:
    pids = torch.randint(0, people, (num_query,)), torch.randint(-1, people, (num_gallery,))
    return Labels(*pids, torch.randint(0, 4, (num_query,)), torch.randint(0, 4, (num_gallery,)))


def on_gpu(*tensors: Tensor) -> list[Tensor]:
    return [tensor.cuda() for tensor in tensors]


def assert_same(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    assert all(torch.equal(a.cpu(), b) for a, b in zip(actual, expected, strict=True))


def test_native_kernels_run() -> None:
    backends = {op.op: op.backend for op in ops.status().ops if op.device == "cuda"}
    for op in ("match_keys", "count_closer", "count_closer_block", "nearest", "nearest_block"):
        assert backends[op] == "native"


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num_query", "num_gallery", "dim"), SHAPES)
def test_same_as_the_cpu(
    num_query: int, num_gallery: int, dim: int, dtype: torch.dtype, metric: Metric
) -> None:
    query, gallery = torch.randn(num_query, dim).to(dtype), torch.randn(num_gallery, dim).to(dtype)
    labels = random_labels(num_query, num_gallery)
    expected = rank_gallery(query, gallery, labels, metric)
    assert_same(rank_gallery(*on_gpu(query, gallery), labels.to(CUDA), metric), expected)
    relevance = relevance_of(labels)
    arguments = (query, gallery, relevance.match_offsets, relevance.matches)
    keys = ops.match_keys(*arguments, metric)
    assert torch.equal(ops.match_keys(*on_gpu(*arguments), metric).cpu(), keys)
    for k in {1, min(num_gallery, 37), min(num_gallery, 1000)}:
        expected_keys = torch.ops.autoreid_fast.nearest(query, gallery, k, metric == "cosine")
        actual = torch.ops.autoreid_fast.nearest(*on_gpu(query, gallery), k, metric == "cosine")
        assert_same(actual, expected_keys)


def test_ties_and_many_matches() -> None:
    query, gallery = torch.randint(-1, 2, (20, 4)).float(), torch.randint(-1, 2, (20000, 4)).float()
    for people in (1, 3, 500):  # 1: more thresholds than shared memory holds
        labels = random_labels(20, 20000, people)
        expected = rank_gallery(query, gallery, labels)
        assert_same(rank_gallery(*on_gpu(query, gallery), labels.to(CUDA)), expected)
        block = torch.cdist(query, gallery).square().round()
        actual = rank_distances(block.cuda(), relevance_of(labels.to(CUDA)))
        assert_same(actual, rank_distances(block, relevance_of(labels)))
    assert_same(ops.nearest_block(block.cuda(), 1000), ops.nearest_block(block, 1000))


def test_strides_and_alignment() -> None:
    wide = torch.randn(500, 90, device="cuda")
    for dtype in DTYPES:
        for x in (wide.to(dtype)[:, 1:78], wide.to(dtype)[::2, :80], wide.to(dtype).t()):
            actual, expected = ops.nearest(x[:9], x, 20), ops.nearest(x[:9].contiguous(), x.contiguous(), 20)
            assert_same(actual, tuple(tensor.cpu() for tensor in expected))


def test_queries_in_several_blocks() -> None:
    """More keys than the workspace holds at once."""
    query, gallery = torch.randn(1500, 3), torch.randn(60000, 3)
    assert_same(ops.nearest(*on_gpu(query, gallery), 5), ops.nearest(query, gallery, 5))


def test_capture_in_a_cuda_graph() -> None:
    query, gallery = torch.randn(40, 64, device="cuda"), torch.randn(900, 64, device="cuda")
    run = torch.ops.autoreid_fast.nearest
    run(query, gallery, 9, False)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        keys, indices = run(query, gallery, 9, False)
    query.normal_()
    graph.replay()
    assert_same((keys, indices), tuple(x.cpu() for x in run(query, gallery, 9, False)))
