"""Features on disk: round trip, files of other tools, malformed files."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file as save_tensors

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation.evaluator import evaluate_folder
from autoreid_fast.evaluation.features import LabeledFeatures, load_features, save_features


@pytest.mark.parametrize("cameras", [None, np.array([3, 4, 5])])
def test_features_round_trip(tmp_path: Path, cameras: np.ndarray | None) -> None:
    features = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float16)
    paths = ["a\r\nb.jpg", 'b "quoted", with a comma.jpg', "ü.jpg"]
    save_features(tmp_path, "query", LabeledFeatures(features, np.array([1, -1, 0]), cameras, paths))
    loaded = load_features(tmp_path, "query")
    assert isinstance(loaded.features, np.memmap)
    np.testing.assert_array_equal(loaded.features, features)
    assert loaded.pids.tolist() == [1, -1, 0]
    assert loaded.paths == paths
    assert loaded.cameras is cameras is None or loaded.cameras.tolist() == [3, 4, 5]  # type: ignore[union-attr]


def test_safetensors_features(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    features = np.arange(6, dtype=np.float32).reshape(3, 2)
    save_file({"features": features}, tmp_path / "gallery.safetensors")
    (tmp_path / "gallery.csv").write_text("pid\n4\n5\n6\n")
    loaded = load_features(tmp_path, "gallery")
    np.testing.assert_array_equal(loaded.features, features)
    assert loaded.pids.tolist() == [4, 5, 6]
    assert loaded.cameras is None
    save_file({"one": features, "two": features}, tmp_path / "gallery.safetensors")
    with pytest.raises(AutoReIDError, match="holds 2 tensors"):
        load_features(tmp_path, "gallery")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,who\na,1\n", "needs a header line.*it has 'path', 'who'"),
        ("path,pid,camera\na,1,1\n", "has 1 rows, but"),
        ("path,pid,camera\na,1,1\nb,2.5,1\n", "line 3: pid is '2.5': it is a fraction"),
        ("path,pid,camera\na,1,1\nb,2,\n", "line 3: camera is '': it is empty"),
        ("pid,person_id\n1,1\n2,2\n", "pid and person_id both mean pid"),
        ("path,pid,camera\na,1,1\nlobby, 7.jpg,2,1\n", "line 3: expected 3 fields.*got 4"),
        ("path,pid,camera\na,1,1\nb,2\n", "line 3: expected 3 fields.*got 2"),
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


@pytest.mark.parametrize("header", ["ID,CamID,File Name", "person_id,cam,image", "\ufeffpid,camera_id,path"])
def test_other_names_of_columns(tmp_path: Path, header: str) -> None:
    np.save(tmp_path / "query.npy", np.zeros((2, 2), np.float32))
    (tmp_path / "query.csv").write_text(f"{header}\n07,3,a\n8,4,b\n", encoding="utf-8")
    loaded = load_features(tmp_path, "query")
    assert (loaded.pids.tolist(), loaded.cameras.tolist(), loaded.paths) == ([7, 8], [3, 4], ["a", "b"])  # type: ignore[union-attr]


def test_columns_that_are_not_read_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.save(tmp_path / "query.npy", np.zeros((2, 2), np.float32))
    (tmp_path / "query.csv").write_text("pid,kamera\nann,1\n2,1\n")
    assert load_features(tmp_path, "query").pids.tolist() == ["ann", "2"]
    assert "columns that are not read: 'kamera'" in caplog.text


def test_names_without_their_numbers_are_columns_that_are_not_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    np.save(tmp_path / "query.npy", np.zeros((1, 2), np.float32))
    (tmp_path / "query.csv").write_text("pid,pid_name,camera_name\n1,ann,door\n")
    assert load_features(tmp_path, "query").cameras is None
    assert "columns that are not read: 'camera_name'" in caplog.text


def test_features_in_two_formats_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "query.npy", np.zeros((1, 2), np.float32))
    save_tensors({"features": torch.ones(1, 2)}, tmp_path / "query.safetensors")
    (tmp_path / "query.csv").write_text("pid\n1\n")
    with pytest.raises(AutoReIDError, match=r"both query\.npy and query\.safetensors; keep one"):
        load_features(tmp_path, "query")


def test_cameras_of_one_side_only_are_refused(tmp_path: Path) -> None:
    for split, table in {"query": "pid,cam\n1,1\n2,1\n", "gallery": "pid,kamera\n1,2\n2,2\n"}.items():
        np.save(tmp_path / f"{split}.npy", np.eye(2, dtype=np.float32))
        (tmp_path / f"{split}.csv").write_text(table)
    with pytest.raises(AutoReIDError, match="has no column camera, and"):
        evaluate_folder(tmp_path)


def test_names_are_saved_beside_the_numbers(tmp_path: Path) -> None:
    labeled = LabeledFeatures(
        np.zeros((2, 2), np.float32), np.array([1, 2]), None, ["a", "b"], ["0000", "ann"]
    )
    save_features(tmp_path, "query", labeled)
    assert (tmp_path / "query.csv").read_text().split() == ["path,pid,pid_name", "a,1,0000", "b,2,ann"]
    assert load_features(tmp_path, "query").pids.tolist() == [1, 2]


def test_bfloat16_features_are_read(tmp_path: Path) -> None:
    features = torch.tensor([[0.5, -2.0], [3.140625, 1e30]], dtype=torch.bfloat16)
    (tmp_path / "query.csv").write_text("pid\n1\n2\n")
    save_tensors({"f": features}, tmp_path / "query.safetensors")
    loaded = load_features(tmp_path, "query").features
    assert loaded.dtype == np.float32
    assert loaded.tolist() == features.tolist()
    save_tensors({"f": features.to(torch.float8_e5m2)}, tmp_path / "query.safetensors")
    with pytest.raises(AutoReIDError, match="the features of query cannot be read"):
        load_features(tmp_path, "query")


def test_npy_files_that_lie(tmp_path: Path) -> None:
    (tmp_path / "query.csv").write_text("pid\n1\n2\n")
    array = tmp_path / "query.npy"
    np.save(array, np.zeros((2, 3), np.float32))
    content = array.read_bytes()
    with array.open("wb") as stream:
        np.savez(stream, np.zeros((2, 3), np.float32))
    contents = [array.read_bytes(), b"", content[:-1], content[:9]]
    headers = (b"(2, 9)", b"(2,-3)", b"((2,3)", b"[x,3] ", b"(9**9)", b"(2e9,)")
    for wrong in [*contents, *(content.replace(b"(2, 3)", header) for header in headers)]:
        array.write_bytes(wrong)
        with pytest.raises(AutoReIDError):
            load_features(tmp_path, "query")
