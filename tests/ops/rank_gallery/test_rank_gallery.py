"""The ops of `ops.rank_gallery`: ranks equal those of a NumPy sort, however the work is split."""

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autoreid_fast import ops
from autoreid_fast.evaluation.protocol import (
    GalleryRanks,
    Labels,
    Metric,
    Relevance,
    Thresholds,
    order_thresholds,
    relevance_of,
)
from autoreid_fast.evaluation.ranking import rank_distances, rank_gallery
from autoreid_fast.ops import keys as gallery_keys
from autoreid_fast.ops.csr import row_indices

SMALL = settings(deadline=None, max_examples=40, derandomize=True)
METRICS: tuple[Metric, ...] = get_args(Metric)


class Problem:
    """Labels and features of a small evaluation; with `exact` float32 is exact and ties are frequent."""

    def __init__(
        self, num_query: int, num_gallery: int, dim: int, seed: int, people: int = 6, exact: bool = True
    ) -> None:
        random = np.random.default_rng(seed)
        if exact:  # rows with 0 or 4 entries of 1 or -1: squared norm 0 or 4, so that cosine is exact as well
            dim = max(dim, 4)
            rows = np.zeros((num_query + num_gallery, dim), dtype=np.float32)
            for row in rows[random.random(len(rows)) < 0.9]:
                row[random.choice(min(dim, 6), 4, replace=False)] = random.choice([-1, 1], 4)
        else:
            rows = random.standard_normal((num_query + num_gallery, dim)).astype(np.float32)
        self.query, self.gallery = rows[:num_query], rows[num_query:]
        self.query_pids = random.integers(-1, people, num_query)
        self.gallery_pids = random.integers(-1, people, num_gallery)
        self.query_cams = random.integers(0, 3, num_query)
        self.gallery_cams = random.integers(0, 3, num_gallery)

    def labels(self, cameras: bool = True) -> Labels:
        pids = (torch.from_numpy(self.query_pids), torch.from_numpy(self.gallery_pids))
        cams = (torch.from_numpy(self.query_cams), torch.from_numpy(self.gallery_cams))
        return Labels(*pids, *cams) if cameras else Labels(*pids)

    def features(self) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.query), torch.from_numpy(self.gallery)

    def distances(self, metric: str) -> np.ndarray:
        q, g = self.query.astype(np.float64), self.gallery.astype(np.float64)
        if metric == "cosine":
            norms = [np.linalg.norm(x, axis=1, keepdims=True) for x in (q, g)]
            q, g = (x / np.where(n > 0, n, 1) for x, n in zip((q, g), norms, strict=True))
            return 1 - q @ g.T
        return ((q[:, None] - g[None]) ** 2).sum(-1)

    def truth(self, metric: str, cameras: bool) -> tuple[list[list[int]], list[int]]:
        """Each query's ranks and number of ranked entries, by sorting under the protocol."""
        ranks, entries = [], []
        for i, row in enumerate(self.distances(metric)):
            keep = self.gallery_pids != -1
            if cameras:
                keep &= (self.gallery_pids != self.query_pids[i]) | (self.gallery_cams != self.query_cams[i])
            kept = np.flatnonzero(keep)
            order = kept[np.lexsort((kept, row[kept]))]
            ranks.append((np.flatnonzero(self.gallery_pids[order] == self.query_pids[i]) + 1).tolist())
            entries.append(len(kept))
        return ranks, entries


def as_lists(ranked: GalleryRanks) -> tuple[list[list[int]], list[int]]:
    bounds = pairwise(ranked.offsets.tolist())
    return [ranked.ranks[first:last].tolist() for first, last in bounds], ranked.entries.tolist()


def rank(problem: Problem, metric: Metric = "euclidean", cameras: bool = True) -> GalleryRanks:
    return rank_gallery(*problem.features(), problem.labels(cameras), metric)


def match_keys(query: Tensor, gallery: Tensor, relevance: Relevance, metric: Metric = "euclidean") -> Tensor:
    return ops.match_keys(query, gallery, relevance.match_offsets, relevance.matches, metric)


def counting_arguments(relevance: Relevance, thresholds: Thresholds) -> tuple[Tensor, ...]:
    return (relevance.valid, relevance.excluded_offsets, relevance.excluded, *thresholds)


@SMALL
@given(
    num_query=st.integers(1, 40),
    num_gallery=st.integers(1, 700),
    dim=st.integers(1, 40),
    people=st.integers(1, 30),
    metric=st.sampled_from(METRICS),
    cameras=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_every_rank_equals_numpy(
    num_query: int, num_gallery: int, dim: int, people: int, metric: Metric, cameras: bool, seed: int
) -> None:
    problem = Problem(num_query, num_gallery, dim, seed, people)
    assert as_lists(rank(problem, metric, cameras)) == problem.truth(metric, cameras)


@pytest.mark.parametrize("cameras", [True, False])
@pytest.mark.parametrize("metric", METRICS)
def test_every_rank_equals_numpy_on_every_path(backend: str, metric: Metric, cameras: bool) -> None:
    # few matches per query, thousands of matches, and a gallery smaller than a tile of keys
    for seed, people, num_gallery in [(0, 50, 1500), (1, 1, 1300), (2, 3, 31)]:
        problem = Problem(17, num_gallery, 9, seed, people)
        assert as_lists(rank(problem, metric, cameras)) == problem.truth(metric, cameras)


@pytest.mark.parametrize("metric", METRICS)
def test_random_features_rank_as_in_float64(backend: str, metric: Metric) -> None:
    problem = Problem(15, 600, 70, 3, 5, exact=False)
    assert as_lists(rank(problem, metric)) == problem.truth(metric, True)


def test_keys_are_accurate(backend: str) -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        problem = Problem(20, 300, 200, 4, exact=False)
        query, gallery = (x.to(dtype) for x in problem.features())
        problem.query, problem.gallery = query.float().numpy(), gallery.float().numpy()
        relevance = relevance_of(problem.labels())
        rows = row_indices(relevance.match_offsets)
        for metric, scale in (("euclidean", 1000), ("cosine", 1)):
            keys = match_keys(query, gallery, relevance, metric)  # type: ignore[arg-type]
            exact = torch.from_numpy(problem.distances(metric))[rows, relevance.matches]
            exact = exact - 1 if metric == "cosine" else exact
            assert (keys.double() - exact).abs().max() < 2e-6 * scale


def test_equal_vectors_tie(backend: str) -> None:
    """Copies of the query are all at distance 0 and are ordered by index."""
    query, gallery = torch.randn(1, 513), torch.randn(200, 513)
    copies = [7, 8, 9, 40, 63, 64, 65, 199]
    gallery[copies] = query
    pids = torch.zeros(200, dtype=torch.int64)
    pids[[8, 64, 199]] = 1
    labels = Labels(torch.tensor([1]), pids)
    for metric in METRICS:
        assert rank_gallery(query, gallery, labels, metric).ranks.tolist() == [2, 6, 8]
    keys = match_keys(query, gallery, relevance_of(labels))
    assert (keys < 1e-9).all() if backend == "reference" else not keys.any()


def native_cpu() -> Any:
    return pytest.importorskip("autoreid_fast._cpu", reason="no native library: pure-Python install")


def test_same_bits_for_any_threads_and_instruction_set() -> None:
    native = native_cpu()
    problems = Problem(150, 3000, 130, 5, 40, exact=False), Problem(3, 3000, 130, 6, 2, exact=False)

    def all_results() -> list[Tensor]:
        results: list[Tensor] = []
        for problem in problems:
            for metric in METRICS:
                keys = match_keys(*problem.features(), relevance_of(problem.labels()), metric)
                results += [keys, *rank(problem, metric), *ops.nearest(*problem.features(), 33, metric)]
        return results

    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(all_results())
        for name in ("avx2", "portable"):
            if name in ops.status().libraries[0].facts["instruction sets"].split():
                native.use_instruction_set(name)
                results.append(all_results())
    finally:
        torch.set_num_threads(before)
        native.use_instruction_set("best")
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("cuts", [(700,), (1, 350, 699), (100, 100, 512)])
@pytest.mark.parametrize("metric", METRICS)
def test_shards_add_up(backend: str, metric: Metric, cuts: tuple[int, ...]) -> None:
    problem = Problem(30, 700, 60, 7, exact=backend == "reference")
    expected = rank(problem, metric)
    query, gallery = problem.features()
    shards = [
        (first, gallery[first:last], relevance_of(problem.labels().shard(first, last)))
        for first, last in pairwise([0, *cuts, 700])
    ]
    thresholds = order_thresholds(
        len(query),
        torch.cat([row_indices(relevance.match_offsets) for _, _, relevance in shards]),
        torch.cat([match_keys(query, shard, relevance, metric) for _, shard, relevance in shards]),
        torch.cat([relevance.matches + first for first, _, relevance in shards]),
    )
    counts, entries = torch.zeros_like(expected.ranks), torch.zeros_like(expected.entries)
    for first, shard, relevance in shards:
        arguments = counting_arguments(relevance, thresholds)
        counts += ops.count_closer(query, shard, *arguments, gallery_offset=first, metric=metric)
        entries += relevance.entries
    assert torch.equal(counts + 1, expected.ranks)
    assert torch.equal(thresholds.offsets, expected.offsets)
    assert torch.equal(entries, expected.entries)


def test_blocks_of_queries_give_the_whole(backend: str) -> None:
    problem = Problem(50, 900, 33, 8, exact=backend == "reference")
    expected = rank(problem)
    query_pids, gallery_pids, query_cams, gallery_cams = problem.labels()
    assert query_cams is not None
    query, gallery = problem.features()
    blocks = [
        rank_gallery(
            query[rows], gallery, Labels(query_pids[rows], gallery_pids, query_cams[rows], gallery_cams)
        )
        for rows in (slice(0, 1), slice(1, 30), slice(30, 50))
    ]
    assert torch.equal(torch.cat([block.ranks for block in blocks]), expected.ranks)


@pytest.mark.parametrize("metric", METRICS)
def test_reference_in_blocks(metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery_keys, "_BLOCK", 5)
    problem = Problem(23, 300, 9, 12)
    with ops.backend("reference"):
        assert as_lists(rank(problem, metric)) == problem.truth(metric, True)
        nearest = ops.nearest(*problem.features(), 4, metric).indices.numpy()
    order = np.argsort(problem.distances(metric), axis=1, kind="stable")
    np.testing.assert_array_equal(nearest, order[:, :4])


def test_given_distances(backend: str) -> None:
    """A block of distances ranks as its features do, as a whole and by rows, and is not changed."""
    problem = Problem(40, 1100, 9, 9, 20)
    for cameras in (True, False):
        expected = rank(problem, cameras=cameras)
        block = torch.from_numpy(problem.distances("euclidean")).float()
        relevance = relevance_of(problem.labels(cameras))
        original = block.clone()
        assert_equal(rank_distances(block, relevance), expected)
        parts = [rank_distances(block[a:b], relevance.rows(a, b)) for a, b in ((0, 13), (13, 40))]
        assert torch.equal(torch.cat([part.ranks for part in parts]), expected.ranks)
        wide = torch.cat([block, block], 1)
        assert torch.equal(rank_distances(wide[:, :1100], relevance).ranks, expected.ranks)
        assert torch.equal(rank_distances(block.t().contiguous().t(), relevance).ranks, expected.ranks)
        assert torch.equal(block, original)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_widened(backend: str, dtype: torch.dtype) -> None:
    problem = Problem(20, 400, 50, 10, exact=False)
    query, gallery = (x.to(dtype) for x in problem.features())
    widened = rank_gallery(query.float(), gallery.float(), problem.labels())
    assert_equal(rank_gallery(query, gallery, problem.labels()), widened)


def assert_equal(actual: GalleryRanks, expected: GalleryRanks) -> None:
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


STRIDED: dict[str, Callable[[Tensor], Tensor]] = {
    "columns of a larger tensor": lambda x: torch.cat([x[:, :1], x, x], 1)[:, 1 : 1 + x.shape[1]],
    "every other row": lambda x: x.repeat_interleave(2, 0)[::2],
    "transposed": lambda x: x.t().contiguous().t(),
    "every other column": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "one row, repeated": lambda x: x[:1].expand_as(x),
}


@pytest.mark.parametrize("layout", STRIDED)
def test_strides(backend: str, layout: str) -> None:
    problem = Problem(20, 300, 37, 11, exact=False)
    query, gallery = (STRIDED[layout](x) for x in problem.features())
    labels = problem.labels()
    expected = rank_gallery(query.contiguous(), gallery.contiguous(), labels)
    assert_equal(rank_gallery(query, gallery, labels), expected)
    every_other = Labels(*(None if x is None else x.repeat_interleave(2)[::2] for x in labels))  # type: ignore[arg-type]
    assert_equal(rank_gallery(query, gallery, every_other), expected)


def test_queries_without_a_match(backend: str) -> None:
    problem = Problem(5, 80, 6, 12, people=3)
    problem.query_pids[:] = [-1, 99, 1, 99, -1]
    ranked = rank(problem)
    assert as_lists(ranked) == problem.truth("euclidean", True)
    assert ranked.offsets.diff()[[0, 1, 3, 4]].tolist() == [0, 0, 0, 0]
    problem.query_pids[:] = 99
    assert not len(rank(problem).ranks)
    problem.gallery_pids[:] = -1
    assert rank(problem).entries.tolist() == [0] * 5


def test_empty_shard(backend: str) -> None:
    """A process may have no entries, or no queries."""
    problem = Problem(4, 10, 5, 13)
    query, gallery = problem.features()
    labels = problem.labels(False)
    shard = relevance_of(labels.shard(0, 0))
    assert match_keys(query, gallery[:0], shard).shape == (0,)
    whole = relevance_of(labels)
    keys = match_keys(query, gallery, whole)
    thresholds = order_thresholds(4, row_indices(whole.match_offsets), keys, whole.matches)
    assert not ops.count_closer(query, gallery[:0], *counting_arguments(shard, thresholds)).any()
    assert (
        len(rank_gallery(query[:0], gallery, Labels(labels.query_pids[:0], labels.gallery_pids)).ranks) == 0
    )


MEMORY = """
import resource, torch
from autoreid_fast import ops
from autoreid_fast.evaluation.protocol import Labels
from autoreid_fast.evaluation.ranking import rank_gallery
torch.set_num_threads(1)
query, gallery = torch.randn(3000, 8), torch.randn(60000, 8)
pids = torch.arange(3000), torch.arange(60000) % 6000
rank_gallery(query[:100], gallery[:1000], Labels(pids[0][:100], pids[1][:1000]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rank_gallery(query, gallery, Labels(*pids))
ops.nearest(query, gallery, 10)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_memory_is_bounded() -> None:
    """A full matrix would take 720 MB."""
    native_cpu()
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100
