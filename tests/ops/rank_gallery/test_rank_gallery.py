"""`ops.rank_gallery` and its steps: every rank equal to a NumPy twin's, however the work is cut."""

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autoreid_fast import ops
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops.rank_gallery import reference as twin

SMALL = settings(deadline=None, max_examples=40, derandomize=True)
METRICS: tuple[ops.Metric, ...] = ("euclidean", "sqeuclidean", "cosine")


class Problem:
    """Labels and features of a small evaluation; `exact` features make float32 exact and ties frequent."""

    def __init__(
        self, num_query: int, num_gallery: int, dim: int, seed: int, people: int = 6, exact: bool = True
    ) -> None:
        random = np.random.default_rng(seed)
        if exact:  # every row has 0 or 4 entries of 1 or -1: squared norm 0 or 4, so the cosine is exact too
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

    def labels(self, cameras: bool = True) -> tuple[Tensor | None, ...]:
        pids = (torch.from_numpy(self.query_pids), torch.from_numpy(self.gallery_pids))
        cams = (torch.from_numpy(self.query_cams), torch.from_numpy(self.gallery_cams))
        return (*pids, *cams) if cameras else (*pids, None, None)

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
        """Each query's ranks, and how many entries it ranks: the protocol, query by query."""
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


def as_lists(found: ops.GalleryRanks) -> tuple[list[list[int]], list[int]]:
    bounds = found.offsets.tolist()
    ranks = [found.ranks[a:b].tolist() for a, b in pairwise(bounds)]
    return ranks, found.entries.tolist()


def run(problem: Problem, metric: ops.Metric, cameras: bool) -> ops.GalleryRanks:
    return ops.rank_gallery(*problem.features(), *problem.labels(cameras), metric=metric)  # type: ignore[arg-type]


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
    num_query: int, num_gallery: int, dim: int, people: int, metric: ops.Metric, cameras: bool, seed: int
) -> None:
    problem = Problem(num_query, num_gallery, dim, seed, people)
    assert as_lists(run(problem, metric, cameras)) == problem.truth(metric, cameras)


@pytest.mark.parametrize("cameras", [True, False])
@pytest.mark.parametrize("metric", METRICS)
def test_every_rank_equals_numpy_on_every_path(backend: str, metric: ops.Metric, cameras: bool) -> None:
    # one gallery with fewer matches than a row of keys, one with thousands of them
    for seed, people, num_gallery in [(0, 50, 1500), (1, 1, 1300), (2, 3, 31)]:
        problem = Problem(17, num_gallery, 9, seed, people)
        assert as_lists(run(problem, metric, cameras)) == problem.truth(metric, cameras)


@pytest.mark.parametrize("metric", METRICS)
def test_random_features_rank_as_in_float64(backend: str, metric: ops.Metric) -> None:
    problem = Problem(15, 600, 70, 3, 5, exact=False)
    assert as_lists(run(problem, metric, True)) == problem.truth(metric, True)


def test_keys_are_accurate(backend: str) -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        problem = Problem(20, 300, 200, 4, exact=False)
        query, gallery = (x.to(dtype) for x in problem.features())
        problem.query, problem.gallery = query.float().numpy(), gallery.float().numpy()
        found = ops.relevance(*problem.labels())  # type: ignore[arg-type]
        rows = ops.row_of_each(found.match_offsets)
        for metric, scale in (("euclidean", 1000), ("cosine", 1)):
            keys = ops.match_keys(query, gallery, found, metric)  # type: ignore[arg-type]
            exact = torch.from_numpy(problem.distances(metric))[rows, found.matches]
            exact = exact - 1 if metric == "cosine" else exact
            assert (keys.double() - exact).abs().max() < 2e-6 * scale


def test_equal_vectors_tie(backend: str) -> None:
    """Copies of one vector stand at the same distance, 0 from itself, in the order of the index."""
    torch.manual_seed(1)
    query = torch.randn(1, 513)
    gallery = torch.randn(200, 513)
    copies = [7, 8, 9, 40, 63, 64, 65, 199]
    gallery[copies] = query
    pids = torch.zeros(200, dtype=torch.int64)
    pids[[8, 64, 199]] = 1
    for metric in METRICS:
        found = ops.rank_gallery(query, gallery, torch.tensor([1]), pids, metric=metric)
        assert found.ranks.tolist() == [2, 6, 8]
    found = ops.relevance(torch.tensor([1]), pids)
    keys = ops.match_keys(query, gallery, found)
    assert (keys < 1e-9).all() if backend == "reference" else not keys.any()


def native_cpu() -> Any:
    return pytest.importorskip("autoreid_fast._cpu", reason="no native library: pure-Python install")


def test_same_bits_for_any_threads_and_instruction_set() -> None:
    native = native_cpu()
    features, few = Problem(150, 3000, 130, 5, 40, exact=False), Problem(3, 3000, 130, 6, 2, exact=False)

    def everything() -> list[Tensor]:
        found: list[Tensor] = []
        for problem in (features, few):
            for metric in METRICS:
                shard = ops.relevance(*problem.labels())  # type: ignore[arg-type]
                keys = ops.match_keys(*problem.features(), shard, metric)
                found += [keys, *run(problem, metric, True), *ops.nearest(*problem.features(), 33, metric)]
        return found

    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(everything())
        for name in ("avx2", "portable"):
            if name in ops.status().libraries[0].facts["instruction sets"].split():
                native.use_instruction_set(name)
                results.append(everything())
    finally:
        torch.set_num_threads(before)
        native.use_instruction_set("best")
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("cuts", [(700,), (1, 350, 699), (100, 100, 512)])
@pytest.mark.parametrize("metric", METRICS)
def test_shards_add_up(backend: str, metric: ops.Metric, cuts: tuple[int, ...]) -> None:
    problem = Problem(30, 700, 60, 7, exact=backend == "reference")
    expected = run(problem, metric, True)
    query, gallery = problem.features()
    bounds = [0, *cuts, 700]
    shards = []
    for first, last in pairwise(bounds):
        query_pids, gallery_pids, query_cams, gallery_cams = problem.labels()
        assert query_pids is not None and gallery_pids is not None and gallery_cams is not None
        labels = ops.relevance(query_pids, gallery_pids[first:last], query_cams, gallery_cams[first:last])
        keys = ops.match_keys(query, gallery[first:last], labels, metric)
        shards.append((first, last, labels, keys))
    thresholds = ops.order_thresholds(
        len(query),
        torch.cat([ops.row_of_each(labels.match_offsets) for _, _, labels, _ in shards]),
        torch.cat([keys for *_, keys in shards]),
        torch.cat([labels.matches + first for first, _, labels, _ in shards]),
    )
    counts = sum(
        ops.count_closer(query, gallery[first:last], labels, thresholds, metric, first)
        for first, last, labels, _ in shards
    )
    assert isinstance(counts, Tensor)
    assert torch.equal(counts + 1, expected.ranks)
    assert torch.equal(thresholds.offsets, expected.offsets)
    assert torch.equal(sum(labels.entries for _, _, labels, _ in shards), expected.entries)  # type: ignore[arg-type]


def test_blocks_of_queries_give_the_whole(backend: str) -> None:
    problem = Problem(50, 900, 33, 8, exact=backend == "reference")
    expected = run(problem, "euclidean", True)
    query_pids, gallery_pids, query_cams, gallery_cams = problem.labels()
    assert query_pids is not None and gallery_pids is not None and query_cams is not None
    query, gallery = problem.features()
    blocks = [slice(0, 1), slice(1, 30), slice(30, 50)]
    found = [
        ops.rank_gallery(query[b], gallery, query_pids[b], gallery_pids, query_cams[b], gallery_cams)
        for b in blocks
    ]
    assert torch.equal(torch.cat([block.ranks for block in found]), expected.ranks)


@pytest.mark.parametrize("metric", METRICS)
def test_the_twin_in_blocks(metric: ops.Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twin, "_BLOCK", 5)
    problem = Problem(23, 300, 9, 12)
    with ops.backend("reference"):
        assert as_lists(run(problem, metric, True)) == problem.truth(metric, True)
        nearest = ops.nearest(*problem.features(), 4, metric).indices.numpy()
    order = np.argsort(problem.distances(metric), axis=1, kind="stable")
    np.testing.assert_array_equal(nearest, order[:, :4])


def test_given_distances(backend: str) -> None:
    """A finished block ranks as the features it came from, by rows of all, and it is left as it was."""
    problem = Problem(40, 1100, 9, 9, 20)
    for cameras in (True, False):
        expected = run(problem, "euclidean", cameras)
        block = torch.from_numpy(problem.distances("euclidean")).float()
        labels = ops.relevance(*problem.labels(cameras))  # type: ignore[arg-type]
        kept = block.clone()
        found = ops.rank_distances(block, labels)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        parts = [ops.rank_distances(block[a:b], labels.rows(a, b)) for a, b in ((0, 13), (13, 40))]
        assert torch.equal(torch.cat([part.ranks for part in parts]), expected.ranks)
        wide = torch.cat([block, block], 1)
        assert torch.equal(ops.rank_distances(wide[:, :1100], labels).ranks, expected.ranks)
        assert torch.equal(ops.rank_distances(block.t().contiguous().t(), labels).ranks, expected.ranks)
        assert torch.equal(block, kept)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_widened(backend: str, dtype: torch.dtype) -> None:
    problem = Problem(20, 400, 50, 10, exact=False)
    query, gallery = (x.to(dtype) for x in problem.features())
    found = ops.rank_gallery(query, gallery, *problem.labels())  # type: ignore[arg-type]
    widened = ops.rank_gallery(query.float(), gallery.float(), *problem.labels())  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(found, widened, strict=True))


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
    expected = ops.rank_gallery(query.contiguous(), gallery.contiguous(), *labels)  # type: ignore[arg-type]
    found = ops.rank_gallery(query, gallery, *labels)  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    every_other = [None if x is None else x.repeat_interleave(2)[::2] for x in labels]
    found = ops.rank_gallery(query, gallery, *every_other)  # type: ignore[arg-type]
    assert torch.equal(found.ranks, expected.ranks)


def test_queries_without_a_match(backend: str) -> None:
    problem = Problem(5, 80, 6, 12, people=3)
    problem.query_pids[:] = [-1, 99, 1, 99, -1]
    found = run(problem, "euclidean", True)
    assert as_lists(found) == problem.truth("euclidean", True)
    assert found.offsets.diff()[[0, 1, 3, 4]].tolist() == [0, 0, 0, 0]
    problem.query_pids[:] = 99
    assert run(problem, "euclidean", True).ranks.shape == (0,)
    problem.gallery_pids[:] = -1
    assert run(problem, "euclidean", True).entries.tolist() == [0] * 5


def test_empty_shard(backend: str) -> None:
    """A process may hold no entry, or ask for no query."""
    problem = Problem(4, 10, 5, 13)
    query, gallery = problem.features()
    labels = problem.labels(False)
    assert labels[0] is not None and labels[1] is not None
    shard = ops.relevance(labels[0], labels[1][:0])
    assert ops.match_keys(query, gallery[:0], shard).shape == (0,)
    whole = ops.relevance(labels[0], labels[1])
    keys = ops.match_keys(query, gallery, whole)
    thresholds = ops.order_thresholds(4, ops.row_of_each(whole.match_offsets), keys, whole.matches)
    assert not ops.count_closer(query, gallery[:0], shard, thresholds).any()
    assert len(ops.rank_gallery(query[:0], gallery, labels[0][:0], labels[1]).ranks) == 0


def test_opcheck() -> None:
    problem = Problem(6, 40, 5, 14)
    query, gallery = problem.features()
    query, gallery = STRIDED["transposed"](query), STRIDED["every other row"](gallery)
    found = ops.relevance(*problem.labels())  # type: ignore[arg-type]
    pairs = (found.match_offsets, found.matches)
    torch.library.opcheck(torch.ops.autoreid_fast.match_keys.default, (query, gallery, *pairs, False))
    keys = ops.match_keys(query, gallery, found)
    thresholds = ops.order_thresholds(6, ops.row_of_each(found.match_offsets), keys, found.matches)
    lists = (found.valid, found.excluded_offsets, found.excluded, *thresholds, 0)
    torch.library.opcheck(torch.ops.autoreid_fast.count_closer.default, (query, gallery, *lists, True))
    block = STRIDED["transposed"](torch.from_numpy(problem.distances("euclidean")).float())
    torch.library.opcheck(torch.ops.autoreid_fast.count_closer_block.default, (block, *lists))


def test_the_dispatcher_ops_check_too() -> None:
    native_cpu()
    op = torch.ops.autoreid_fast
    query, gallery = torch.randn(2, 3), torch.randn(5, 3)
    offsets, entries = torch.tensor([0, 1, 2]), torch.tensor([0, 5])
    for call, words in [
        (lambda: op.match_keys(query, gallery, offsets, entries, False), "the lists of matches"),
        (lambda: op.match_keys(query, gallery, offsets[:2], entries, False), "offsets must have 3"),
        (lambda: op.match_keys(query, gallery[:, :2], offsets, entries, False), "differ in their columns"),
        (lambda: op.match_keys(query.double(), gallery, offsets, entries, False), "float32, float16"),
        (lambda: op.nearest(query, gallery, 6, False), "at most the number"),
    ]:
        with pytest.raises(RuntimeError, match=words):
            call()


LABELS = (torch.zeros(4).long(), torch.zeros(6).long())
FEATURES = (torch.randn(4, 3), torch.randn(6, 3))
BAD: dict[str, tuple[Callable[[], object], str]] = {
    "query 1-d": (lambda: ops.rank_gallery(torch.randn(4), FEATURES[1], *LABELS), "query has shape"),
    "no columns": (lambda: ops.rank_gallery(*(x[:, :0] for x in FEATURES), *LABELS), "D >= 1"),
    "columns": (lambda: ops.rank_gallery(FEATURES[0][:, :2], FEATURES[1], *LABELS), "2 columns"),
    "double": (lambda: ops.rank_gallery(*(x.double() for x in FEATURES), *LABELS), r"query.float\(\)"),
    "mixed": (lambda: ops.rank_gallery(FEATURES[0].half(), FEATURES[1], *LABELS), "cast one"),
    "labels' length": (lambda: ops.rank_gallery(*FEATURES, LABELS[1], LABELS[1]), "query_pids is"),
    "labels' type": (
        lambda: ops.rank_gallery(*FEATURES, LABELS[0].int(), LABELS[1]),
        r"query_pids .* call .to\(torch.int64\)",
    ),
    "one camera": (lambda: ops.rank_gallery(*FEATURES, *LABELS, LABELS[0]), "both or neither"),
    "cameras": (lambda: ops.rank_gallery(*FEATURES, *LABELS, *LABELS[::-1]), "query_cams is"),
    "metric": (lambda: ops.rank_gallery(*FEATURES, *LABELS, metric="l1"), "metric is 'l1'"),  # type: ignore[arg-type]
    "NaN": (lambda: ops.rank_gallery(FEATURES[0], FEATURES[1] / 0 * 0, *LABELS), "gallery has NaN"),
    "too large": (lambda: ops.rank_gallery(FEATURES[0] * 1e25, FEATURES[1], *LABELS), "query has NaN, inf"),
    "block": (lambda: ops.rank_distances(FEATURES[0].double(), ops.relevance(*LABELS)), "block is"),
    "relevance": (
        lambda: ops.match_keys(FEATURES[0], FEATURES[0], ops.relevance(*LABELS)),
        "relevance.valid is",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case: str) -> None:
    call, words = BAD[case]
    with pytest.raises(AutoReIDError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


MEMORY = """
import resource, torch
from autoreid_fast import ops
torch.set_num_threads(1)
query, gallery = torch.randn(3000, 8), torch.randn(60000, 8)
pids = torch.arange(3000), torch.arange(60000) % 6000
ops.rank_gallery(query[:100], gallery[:1000], pids[0][:100], pids[1][:1000])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ops.rank_gallery(query, gallery, *pids)
ops.nearest(query, gallery, 10)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_memory_is_bounded() -> None:
    """A full matrix would take 720 MB."""
    native_cpu()
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100
