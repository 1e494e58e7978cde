"""A gallery shared by processes, or cut in shards, is ranked as one process ranks the whole of it."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from autoreid_fast import RerankConfig, evaluate, k_reciprocal
from autoreid_fast.distributed.processes import Shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation import ranking
from autoreid_fast.evaluation.features import LabeledFeatures, load_features, save_features

Arrays = dict[str, np.ndarray]

WORKER = """
import sys
import numpy as np
import torch.distributed as distributed
from autoreid_fast import evaluate
distributed.init_process_group("gloo")
arrays = np.load(sys.argv[1])
names = ("query", "gallery", "query_pids", "gallery_pids", "query_cams", "gallery_cams")
result = evaluate(*(arrays[name] for name in names))
np.savez(f"{sys.argv[2]}-{distributed.get_rank()}.npz", ap=result.average_precision, hit=result.first_hit)
distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    """Small integer features: full of equal distances, so that an order by anything but the index shows."""
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


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_a_gallery(arrays: Arrays, tmp_path: Path, processes: int) -> None:
    np.savez(tmp_path / "arrays.npz", **arrays)
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
    ]
    done = subprocess.run(
        [*command, script, tmp_path / "arrays.npz", tmp_path / "result"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected = one_process(arrays)
    for process in range(processes):
        found = np.load(tmp_path / f"result-{process}.npz")
        np.testing.assert_array_equal(found["ap"], expected[0])
        np.testing.assert_array_equal(found["hit"], expected[1])


def test_shards_and_query_blocks_change_nothing(arrays: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = one_process(arrays)
    monkeypatch.setattr(ranking, "_shards", lambda gallery, device: [(0, 1), (1, 100), (100, len(gallery))])
    monkeypatch.setattr(ranking, "QUERIES_AT_ONCE", 5)
    found = one_process(arrays)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_ranks_are_whole_numbers(arrays: Arrays) -> None:
    """Which float32 holds to 2^24 alone: galleries are larger."""
    query, gallery, *labels = (torch.from_numpy(array) for array in arrays.values())
    found = ranking.rank(query, gallery, ranking.Labels(*labels), "euclidean", torch.device("cpu"))
    assert {each.dtype for each in found} == {torch.int64}


def test_reranked_blocks_rank_as_the_dense_distances_do(
    arrays: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(3)
    query, gallery = (random.normal(size=(count, 8)).astype(np.float32) for count in (19, 83))
    query_pids, gallery_pids = random.integers(1, 9, 19), random.integers(1, 9, 83)
    monkeypatch.setattr(ranking, "RERANKED_BYTES", 4 * 83 * 3)  # three queries a block
    result = evaluate(query, gallery, query_pids, gallery_pids, rerank=RerankConfig(k1=7, k2=3))
    order = k_reciprocal(query, gallery, k1=7, k2=3).argsort(axis=1, kind="stable")
    for row in range(19):
        found = np.flatnonzero(gallery_pids[order[row]] == query_pids[row]) + 1
        assert result.first_hit[row] == found[0]
        assert result.average_precision[row] == pytest.approx((np.arange(1, len(found) + 1) / found).mean())


def test_rerank_is_zhongs_unless_told() -> None:
    assert RerankConfig().model_dump() == {"k1": 20, "k2": 6, "lambda_value": 0.3}
    random = np.random.default_rng(4)
    query, gallery = (random.normal(size=(count, 5)).astype(np.float32) for count in (9, 60))
    np.testing.assert_array_equal(k_reciprocal(query, gallery), k_reciprocal(query, gallery, 20, 6, 0.3))
    for name, least in (("k1", 1), ("k2", 1), ("lambda_value", 0)):
        assert getattr(RerankConfig(**{name: least}), name) == least
        with pytest.raises(ValueError, match=name):
            RerankConfig(**{name: least - 1})
    assert RerankConfig(lambda_value=1).lambda_value == 1
    with pytest.raises(ValueError, match="lambda_value"):
        RerankConfig(lambda_value=1.01)


@pytest.mark.parametrize("rerank", [None, RerankConfig(k1=5)])
def test_progress_goes_to_its_end_one_step_at_a_time(
    arrays: Arrays, rerank: RerankConfig | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "_shards", lambda gallery, device: [(0, 100), (100, len(gallery))])
    monkeypatch.setattr(ranking, "QUERIES_AT_ONCE", 9)
    monkeypatch.setattr(ranking, "RERANKED_BYTES", 4 * 211 * 10 + 1)
    calls: list[tuple[int, int]] = []
    one_process(arrays, rerank=rerank, show_done=lambda done, total: calls.append((done, total)))
    # two passes over two shards in five blocks of queries; or the queries of four blocks
    steps = list(range(1, 21)) if rerank is None else [10, 20, 30, 37]
    assert calls == [(done, steps[-1]) for done in steps]


def test_rerank_refuses_what_it_cannot_mean(arrays: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AutoReIDError, match="rerank is Euclidean"):
        one_process(arrays, rerank=RerankConfig(), metric="cosine")
    monkeypatch.setattr("autoreid_fast.evaluation.evaluate.current_shard", lambda: Shard(1, 2))
    with pytest.raises(AutoReIDError, match="rerank runs in one process"):
        one_process(arrays, rerank=RerankConfig())


def test_half_and_double_features_are_taken(arrays: Arrays) -> None:
    expected = one_process(arrays)  # small integers: exact in every type
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        converted = {**arrays, "query": torch.tensor(arrays["query"], dtype=dtype)}
        converted["gallery"] = torch.tensor(arrays["gallery"], dtype=dtype)
        np.testing.assert_array_equal(one_process(converted)[1], expected[1])


@pytest.mark.parametrize("cameras", [None, np.array([3, 4, 5])])
def test_features_on_disk_come_back_as_they_were(tmp_path: Path, cameras: np.ndarray | None) -> None:
    features = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float16)
    paths = ["a\r\nb.jpg", 'b "quoted", with a comma.jpg', "ü.jpg"]
    save_features(tmp_path, "query", LabeledFeatures(features, np.array([1, -1, 0]), cameras, paths))
    back = load_features(tmp_path, "query")
    assert isinstance(back.features, np.memmap)
    np.testing.assert_array_equal(back.features, features)
    assert back.pids.tolist() == [1, -1, 0]
    assert back.paths == paths
    assert back.cameras is cameras is None or back.cameras.tolist() == [3, 4, 5]  # type: ignore[union-attr]


def test_safetensors_features(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    features = np.arange(6, dtype=np.float32).reshape(3, 2)
    save_file({"features": features}, tmp_path / "gallery.safetensors")
    (tmp_path / "gallery.csv").write_text("pid\n4\n5\n6\n")
    back = load_features(tmp_path, "gallery")
    np.testing.assert_array_equal(back.features, features)
    assert back.pids.tolist() == [4, 5, 6]
    assert back.cameras is None
    save_file({"one": features, "two": features}, tmp_path / "gallery.safetensors")
    with pytest.raises(AutoReIDError, match="holds 2 tensors"):
        load_features(tmp_path, "gallery")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,camera\na,1\n", "needs a header line"),
        ("path,pid,camera\na,1,1\n", "has 1 rows, but"),
        ("path,pid,camera\na,1,1\nb,x,1\n", "line 3: pid is 'x'"),
        (None, "cannot be read"),
    ],
)
def test_malformed_tables(tmp_path: Path, table: str | None, message: str) -> None:
    np.save(tmp_path / "query.npy", np.zeros((2, 2), np.float32))
    if table is not None:
        (tmp_path / "query.csv").write_text(table)
    with pytest.raises(AutoReIDError, match=message):
        load_features(tmp_path, "query")


def test_malformed_features(tmp_path: Path) -> None:
    (tmp_path / "query.csv").write_text("pid\n1\n")
    with pytest.raises(AutoReIDError, match="no such file"):
        load_features(tmp_path, "query")
    for content in (b"\x93NUMPY not really", pickle.dumps(np.zeros((1, 2), np.float32))):
        (tmp_path / "query.npy").write_bytes(content)
        with pytest.raises(AutoReIDError, match="cannot be read"):
            load_features(tmp_path, "query")


def test_a_bad_value_is_named_by_its_own_row(arrays: Arrays) -> None:
    gallery = np.zeros((9000, 3), np.float32)
    gallery[8500, 1] = np.nan
    wrong = {
        **arrays,
        "gallery": gallery,
        "gallery_pids": np.ones(9000, int),
        "gallery_cams": np.ones(9000, int),
    }
    with pytest.raises(AutoReIDError, match="gallery_features holds NaN or infinity, first in row 8500"):
        one_process(wrong)


def test_labels_must_be_numbers(arrays: Arrays) -> None:
    with pytest.raises(AutoReIDError, match="gallery_pids must hold numbers"):
        one_process({**arrays, "gallery_pids": np.array(["a"] * 211)})
