"""Galleries shared by processes or split into shards rank as a whole gallery in one process."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from autoreid_fast import RerankConfig, evaluate
from autoreid_fast.evaluation import ranking, reranking
from autoreid_fast.evaluation.protocol import Labels

Arrays = dict[str, np.ndarray]

WORKER = """
import sys
import numpy as np
import torch.distributed as distributed
from autoreid_fast import evaluate
from autoreid_fast.errors import AutoReIDError
folder, rank, processes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=processes)
arrays = np.load(f"{folder}/arrays.npz")
names = ("query", "gallery", "query_pids", "gallery_pids", "query_cams", "gallery_cams")
inputs = [arrays[name] for name in names]
for changed in range(len(inputs)):  # in the last process: rows in another order
    own = [np.roll(x, rank == 2 and number == changed, axis=0) for number, x in enumerate(inputs)]
    try:
        evaluate(*own)
    except AutoReIDError as error:
        assert "differ in" in str(error), error
    else:
        raise AssertionError(f"{names[changed]} differ, and nothing was said")
result = evaluate(*inputs)
np.savez(f"{folder}/result-{rank}.npz", ap=result.average_precision, hit=result.first_hit)
distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    """Small integer features with many equal distances, which only the index orders."""
    random = np.random.default_rng(7)
    return {
        "query": random.integers(-2, 3, (37, 3)).astype(np.float32),
        "gallery": random.integers(-2, 3, (211, 3)).astype(np.float32),
        "query_pids": random.integers(1, 12, 37),
        "gallery_pids": random.integers(-1, 12, 211),
        "query_cams": random.integers(0, 3, 37),
        "gallery_cams": random.integers(0, 3, 211),
    }


def one_process(arrays: Arrays, **options: object) -> tuple[np.ndarray, np.ndarray]:
    names = ("query", "gallery", "query_pids", "gallery_pids", "query_cams", "gallery_cams")
    result = evaluate(*(arrays[name] for name in names), **options)  # type: ignore[arg-type]
    return result.average_precision, result.first_hit


def test_processes_share_a_gallery(arrays: Arrays, tmp_path: Path) -> None:
    """If it is the same one in each."""
    processes = 3
    np.savez(tmp_path / "arrays.npz", **arrays)
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    workers = [
        subprocess.Popen([*command, str(rank), str(processes)], stderr=subprocess.PIPE, text=True)
        for rank in range(processes)
    ]
    for worker in workers:
        errors = worker.communicate(timeout=120)[1]
        assert worker.returncode == 0, errors[-2000:]
    expected = one_process(arrays)
    for rank in range(processes):
        actual = np.load(tmp_path / f"result-{rank}.npz")
        np.testing.assert_array_equal(actual["ap"], expected[0])
        np.testing.assert_array_equal(actual["hit"], expected[1])


def test_shards_and_query_blocks_change_nothing(arrays: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = one_process(arrays)
    monkeypatch.setattr(ranking, "_shards", lambda gallery, device: [(0, 1), (1, 100), (100, len(gallery))])
    monkeypatch.setattr(ranking, "QUERIES_AT_ONCE", 5)
    actual = one_process(arrays)
    np.testing.assert_array_equal(actual[0], expected[0])
    np.testing.assert_array_equal(actual[1], expected[1])


@pytest.mark.parametrize("most", [1, 60])
def test_groups_of_queries_bound_the_matches(
    arrays: Arrays, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of few people with many images each, all matches at once need more memory than all distances.

    The first and the last query have no match.
    """
    changed = {
        **arrays,
        "query_pids": np.r_[-1, arrays["query_pids"][1:-1], 99],
    }
    expected = one_process(changed)
    monkeypatch.setattr(ranking, "MATCHES_AT_ONCE", most)
    query, gallery, *labels = (torch.from_numpy(array) for array in changed.values())
    device = torch.device("cpu")
    groups = list(ranking.rank_in_groups(query, gallery, Labels(*labels), "euclidean", device, None))
    largest = max(np.unique(arrays["gallery_pids"], return_counts=True)[1])
    assert len(groups) > 5
    assert max(len(group.ranks) for group in groups) < most + largest

    calls: list[tuple[int, int]] = []
    actual = one_process(changed, show_done=lambda done, total: calls.append((done, total)))
    np.testing.assert_array_equal(actual[0], expected[0])
    np.testing.assert_array_equal(actual[1], expected[1])
    assert calls == [(done, 2 * len(groups)) for done in range(1, 2 * len(groups) + 1)]


def test_ranks_are_whole_numbers(arrays: Arrays) -> None:
    """float32 holds whole numbers only up to 2^24, and galleries may be larger."""
    query, gallery, *labels = (torch.from_numpy(array) for array in arrays.values())
    ranked = ranking.rank_gallery(query, gallery, Labels(*labels))
    assert {tensor.dtype for tensor in ranked} == {torch.int64}


@pytest.mark.parametrize("rerank", [None, RerankConfig(k1=5)])
def test_progress_counts_every_step(
    arrays: Arrays, rerank: RerankConfig | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "_shards", lambda gallery, device: [(0, 100), (100, len(gallery))])
    monkeypatch.setattr(ranking, "QUERIES_AT_ONCE", 9)
    monkeypatch.setattr(reranking, "BLOCK_BYTES", 4 * 211 * 10 + 1)
    calls: list[tuple[int, int]] = []
    one_process(arrays, rerank=rerank, show_done=lambda done, total: calls.append((done, total)))
    # two passes over two shards and five blocks of queries; re-ranking: the queries after each of four blocks
    steps = list(range(1, 21)) if rerank is None else [10, 20, 30, 37]
    assert calls == [(done, steps[-1]) for done in steps]


def test_half_and_double_features(arrays: Arrays) -> None:
    expected = one_process(arrays)  # small integers: exact in every type
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        converted = {**arrays, "query": torch.tensor(arrays["query"], dtype=dtype)}
        converted["gallery"] = torch.tensor(arrays["gallery"], dtype=dtype)
        np.testing.assert_array_equal(one_process(converted)[1], expected[1])
