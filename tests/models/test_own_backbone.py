"""A user's backbone in one file outside the package, from the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

import autoreid_fast
from autoreid_fast.cli import main
from autoreid_fast.registry import plugins
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.training.config import TrainConfig

MODULE = '''
"""A backbone of one's own."""

from torch import Tensor, nn

from autoreid_fast.models import register_backbone


@register_backbone("strided")
class Strided(nn.Module):
    """Three strided convolutions."""

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, channels, 3, stride=2, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * channels, 2 * channels, 3, stride=2, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)
'''


def test_it_trains_evaluates_exports_and_is_listed(
    own_module: Callable[[str], None],
    own_images: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for command in ("evaluate", "train"):
        monkeypatch.setattr(f"autoreid_fast.commands.{command}.draw_report", lambda folder: None)
    own_module(MODULE)
    network = ["--network", "strided", "--channels", "4", "--device", "cpu"]
    batch = ["--epochs", "2", "--batch.identities", "2", "--batch.images", "2"]
    assert main(["train", "--import", "mine.py", *own_images, *network, *batch, "--run", "run"]) == 0
    recorded = yaml.safe_load(Path("run/config.yaml").read_text(encoding="utf-8"))
    assert (recorded["network"], recorded["imports"]) == ("strided", [str(tmp_path / "mine.py")])
    metrics = json.loads(Path("run/metrics.json").read_text(encoding="utf-8"))
    assert metrics["costs"]["stages"][0]["name"] == "backbone"

    own_module(MODULE)  # the run knows where its module is
    assert main(["train", "--run", "run", "--resume"]) == 0
    own_module(MODULE)
    assert main(["eval", "--run", "run", "--json", "eval.json"]) == 0
    evaluated = json.loads(Path("eval.json").read_text(encoding="utf-8"))
    assert evaluated["mAP"] == pytest.approx(metrics["mAP"])

    own_module(MODULE)
    images = torch.randn(2, 3, 32, 16)
    features = autoreid_fast.load("run", "cpu").features(images)
    for kind in ("safetensors", "torch"):
        assert main(["export", "run", "--format", kind]) == 0
    capsys.readouterr()
    torch.testing.assert_close(torch.export.load("run/export/model.pt2").module()(images), features)
    torch.testing.assert_close(
        autoreid_fast.load("run/export/model.safetensors", "cpu").features(images), features
    )

    own_module(MODULE)
    assert main(["models", "--import", "mine", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["strided"]["name"] == "Three strided convolutions."
    assert main(["costs", "strided", "--import", "mine", "--channels", "4"]) == 0
    assert "backbone" in capsys.readouterr().out


def test_without_the_import_its_name_is_unknown(
    own_module: Callable[[str], None], own_images: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *own_images, "--network", "strided", "--run", "run"]) == 2
    message = capsys.readouterr().err
    assert "unknown backbone 'strided': expected a genotype.json or one of resnet18" in message
    assert "--import" in message


def test_a_run_whose_import_no_longer_registers_the_name(
    own_module: Callable[[str], None],
    own_images: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own_module(MODULE)
    config = TrainConfig(network="strided", data={"kind": "folder", "root": str(tmp_path)})
    run = RunFolder("run")
    plugins.import_plugin("mine.py")
    run.start(config, "train")
    run.save(1, [], {"model": {}})

    own_module(MODULE.replace('"strided"', '"striding"'))
    assert main(["eval", "--run", "run", *own_images]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "unknown backbone 'strided': did you mean striding?" in line
    assert f"(imported: {tmp_path / 'mine.py'})" in line
