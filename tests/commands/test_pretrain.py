"""`pretrain`: it learns, can be resumed, and `train` starts from exactly its weights."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import autoreid_fast.training.pretraining as pretraining
from autoreid_fast.cli import main
from autoreid_fast.models.registry import build_backbone
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.training.config import TrainConfig
from autoreid_fast.training.network import initial_network

Capture = pytest.CaptureFixture[str]
SMALL = ["--channels", "4", "--cells-per-block", "1", "1", "1", "1"]


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of noisy colours."""
    root = tmp_path_factory.mktemp("colours")
    random = np.random.default_rng(0)
    for split, count in (("train", 16), ("val", 6)):
        for channel, name in enumerate(("red", "green", "blue")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 160, (40, 48, 3), dtype=np.uint8)
                pixels[..., channel] += 90
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def line(colours: Path) -> list[str]:
    """``pretrain`` of three epochs of a small searched network, without --run."""
    steps = ["--epochs", "3", "--batch-size", "12", "--min-crop-area", "0.5", "--learning-rate", "0.05"]
    where = ["--root", str(colours), "--height", "64", "--width", "32", "--workers", "0", "--device", "cpu"]
    return ["pretrain", *SMALL, *steps, *where, "--network", "autoreid_retrieval"]


@pytest.fixture(scope="module")
def pretrained(line: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("pretrained") / "run"
    assert main([*line, "--ema-decay", "0.5", "--run", str(run)]) == 0
    return run


def test_accuracy_and_learning_rates(pretrained: Path) -> None:
    metrics = json.loads((pretrained / "metrics.json").read_text())
    history = json.loads((pretrained / "history.json").read_text())
    assert history[-1]["loss"] < history[0]["loss"]
    assert metrics["top1"] == history[-1]["top1"] > 0.6
    assert metrics["top5"] == 1
    assert metrics["classes"] == 3
    rates = [0.05 * (1 + np.cos(np.pi * epoch / 3)) / 2 for epoch in range(3)]
    assert [record["learning_rate"] for record in history] == pytest.approx(rates)


def test_the_weights_are_the_moving_average(pretrained: Path) -> None:
    weights = load_file(pretrained / "weights.safetensors")
    state = torch.load(pretrained / "checkpoints" / "last.pt", weights_only=True)
    for name, value in weights.items():
        assert torch.equal(value, state["average"][f"module.backbone.{name}"])
    assert any(not torch.equal(value, state["model"][f"backbone.{name}"]) for name, value in weights.items())


def test_train_starts_from_exactly_the_weights(pretrained: Path, data: list[str], tmp_path: Path) -> None:
    weights = load_file(pretrained / "weights.safetensors")
    small: dict[str, Any] = {"channels": 4, "cells_per_block": (1, 1, 1, 1), "embedding_dim": 8}
    for source in (pretrained, pretrained / "weights.safetensors"):
        config = TrainConfig(network="autoreid_retrieval", pretrained=source, **small)
        network = initial_network(config, RunFolder(tmp_path / "unused"), identities=7)
        state = network.backbone.state_dict()
        assert state.keys() == weights.keys()
        assert all(torch.equal(state[name], weights[name]) for name in weights)
        assert network.head.classifier.weight.shape == (7, 8)  # type: ignore[union-attr]
    # the folder of the pre-training can be the network as well
    run = tmp_path / "run"
    line = ["train", *data, *SMALL, "--network", str(pretrained), "--pretrained", str(pretrained)]
    line += ["--epochs", "1", "--batch.identities", "3", "--learning-rate", "1e-6", "--run", str(run)]
    assert main(line) == 0
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["model"]
    torch.testing.assert_close(state["backbone.head.0.weight"], weights["head.0.weight"], atol=1e-4, rtol=0)


def test_invalid_input_is_one_line(
    pretrained: Path, data: list[str], line: list[str], tmp_path: Path, capsys: Capture
) -> None:
    train = ["train", *data, *SMALL, "--network", "darts_v2", "--pretrained"]
    for arguments, message in [
        ([*train, str(pretrained)], "not the weights of this network"),
        ([*train, str(tmp_path)], "no weights.safetensors in it"),
        ([*line, "--batch-size", "49"], "batch_size is 49"),
        ([*line, "--root", str(tmp_path)], "train: no such folder"),
        ([*line, "--height", "32"], "part_aware would get"),
    ]:
        assert main([*arguments, "--run", str(tmp_path / "run")]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]


def test_an_interrupted_and_resumed_run_ends_the_same(
    pretrained: Path, line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    run = tmp_path / "run"
    accuracy = pretraining.accuracy

    def interrupted(*arguments: Any) -> dict[str, float]:
        if (run / "history.json").exists():  # in the second epoch
            raise KeyboardInterrupt
        return accuracy(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "accuracy", interrupted)
        assert main([*line, "--ema-decay", "0.5", "--run", str(run)]) == 130
    assert "--resume" in capsys.readouterr().err
    assert not (run / "weights.safetensors").exists()
    assert main(["pretrain", "--resume", "--run", str(run)]) == 0
    for name in ("weights.safetensors", "metrics.json"):
        assert (run / name).read_bytes() == (pretrained / name).read_bytes()


def test_bfloat16_and_step_schedule(line: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--amp", "--schedule", "step", "--decay-epochs", "1", "--epochs", "2", "--network", "resnet18"]
    assert main([*line, *options, "--channels", "2", "--run", str(run)]) == 0
    history = json.loads((run / "history.json").read_text())
    assert [record["learning_rate"] for record in history] == pytest.approx([0.05, 0.005])
    weights = load_file(run / "weights.safetensors")
    assert weights.keys() == build_backbone("resnet18", 2).state_dict().keys()
    assert weights["conv1.weight"].dtype == torch.float32


def test_two_processes_compute_what_one_computes(
    fork_group: Callable[[list[str]], list[Any]], line: list[str], tmp_path: Path
) -> None:
    runs = tmp_path / "one", tmp_path / "two"
    short = [*line, "--epochs", "1", "--network", "resnet18", "--channels", "2", "--ema-decay", "0.5"]
    processes = fork_group([*short, "--run", str(runs[1])])
    assert main([*short, "--run", str(runs[0])]) == 0
    ended = [process.wait() for process in processes]
    assert [status for status, _, _ in ended] == [0, 0], ended
    one, two = (json.loads((run / "history.json").read_text())[0] for run in runs)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert one["top5"] == two["top5"] == 1  # every image is counted exactly once
    weights = [load_file(run / "weights.safetensors") for run in runs]
    for name in ("conv1.weight", "layer4.1.conv2.weight", "bn1.running_mean"):
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-2, atol=1e-4)
