"""Runs and features are the same whatever the default dtype of torch is."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

import autoreid_fast
from autoreid_fast.cli import main

METRICS = ("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP", "num_query", "num_valid", "chance")


@contextmanager
def double_by_default() -> Iterator[None]:
    """Another default dtype than that of images."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_default_dtype_changes_no_run(trained: Path, train_line: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    with double_by_default():
        assert main([*train_line, "--epochs", "1", "--run", str(run)]) == 0
    states = [torch.load(path / "checkpoints" / "last.pt") for path in (run, trained)]
    dtypes, expected = ({name: value.dtype for name, value in state["model"].items()} for state in states)
    assert dtypes == expected
    assert states[0]["history"][0]["cross_entropy"] == states[1]["history"][0]["cross_entropy"]


def test_the_default_dtype_changes_no_features(trained: Path, people: Path, tmp_path: Path) -> None:
    folder, model, scores = tmp_path / "features", tmp_path / "model.safetensors", tmp_path / "scores.json"
    first = people / (trained / "features" / "query.csv").read_text().splitlines()[1].split(",")[0]
    with double_by_default():
        assert main(["extract", "--run", str(trained), "--features", str(folder)]) == 0
        assert main(["rank", str(folder), "--json", str(scores)]) == 0
        assert main(["export", str(trained), "--format", "safetensors", "--out", str(model)]) == 0
        embedded = [autoreid_fast.load(source, "cpu").embed(first) for source in (trained, model)]
    expected = np.load(trained / "features" / "query.npy")
    np.testing.assert_array_equal(np.load(folder / "query.npy"), expected)
    assert json.loads(scores.read_text())["mAP"] == json.loads((trained / "metrics.json").read_text())["mAP"]
    for features in embedded:
        np.testing.assert_allclose(features.numpy(), expected[:1], atol=1e-6)
