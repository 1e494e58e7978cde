"""The examples of search, training and distributed run; `search` and `train` are called as from a script."""

import doctest
import json
from importlib import import_module
from pathlib import Path

import pytest

from autoreid_fast.data.synthetic import SyntheticConfig, generate
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.training import TrainConfig, train

MODULES = [
    "distributed.group",
    "distributed.processes",
    "search.algorithm",
    "search.profile",
    "search.run",
    "training.pretraining",
    "training.reid",
]


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    result = doctest.testmod(import_module(f"autoreid_fast.{name}"))
    assert result.attempted > 0
    assert not result.failed


def test_a_path_is_started_resumed_and_checked() -> None:
    generate(
        "people", SyntheticConfig(train_identities=4, test_identities=3, cameras=2, junk=0, distractors=0)
    )
    config = TrainConfig(
        data={"kind": "synthetic", "root": "people", "height": 32, "width": 16},
        network="resnet18",
        channels=2,
        batch={"identities": 2, "images": 2},
        epochs=1,
        device="cpu",
    )
    metrics = train(config, "run")
    assert "epoch   1/1" in Path("run/log.txt").read_text()
    assert metrics == json.loads(Path("run/metrics.json").read_text())
    assert train(config, Path("run")) == metrics
    assert len(json.loads(Path("run/history.json").read_text())) == 1
    with pytest.raises(AutoReIDError, match="run holds a run with another config \\(epochs: 1, now 2\\)"):
        train(config.model_copy(update={"epochs": 2}), "run")
    with pytest.raises(AutoReIDError, match=r"data\.root is not set"):
        train(TrainConfig(device="cpu"), "other")
    assert not Path("other/config.yaml").exists()
