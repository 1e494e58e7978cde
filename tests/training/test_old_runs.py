"""Runs made before the package was rearranged (commit 21ef62b, by fixtures/make.py) resume and are read."""

import importlib.util
import json
import lzma
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from autoreid_fast.cli import main
from autoreid_fast.models.registry import build_backbone
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.search.config import SEARCH_ALGORITHMS, SearchConfig
from autoreid_fast.training.config import PretrainConfig, TrainConfig

FIXTURES = Path(__file__).parent / "fixtures"
CONFIGS = {"search": SearchConfig, "train": TrainConfig, "pretrain": PretrainConfig}
RUNS = ("search-darts", "search-gdas", "train", "pretrain")


@pytest.fixture(scope="module")
def make() -> Any:
    """The module fixtures/make.py."""
    spec = importlib.util.spec_from_file_location("make_old_runs", FIXTURES / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def old_run(tmp_path: Path, make: Any) -> Callable[[str], Path]:
    """Restore a run folder, and the images that its config names, in ``tmp_path``."""

    def restore(name: str) -> Path:
        make.write_people(tmp_path / "people")
        make.write_classes(tmp_path / "classes")
        run = tmp_path / "run"
        shutil.copytree(FIXTURES / name, run, ignore=shutil.ignore_patterns("end.json", "*.xz"))
        config = run / "config.yaml"
        config.write_text(config.read_text().replace("WORK", str(tmp_path)))
        checkpoint = run / "checkpoints" / "last.pt"
        checkpoint.parent.mkdir()
        checkpoint.write_bytes(lzma.decompress((FIXTURES / name / "last.pt.xz").read_bytes()))
        return run

    return restore


@pytest.mark.parametrize("name", RUNS)
def test_an_old_run_resumes_to_its_recorded_end(
    name: str, old_run: Callable[[str], Path], make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit on a CPU with the instruction set of the recording; on others the losses are close."""
    command = name.partition("-")[0]
    if command != "pretrain":
        monkeypatch.setattr(f"autoreid_fast.commands.{command}.draw_report", lambda folder: None)
    run = old_run(name)
    assert main([command, "--resume", "--run", str(run)]) == 0
    end = json.loads((FIXTURES / name / "end.json").read_text())
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    metrics = json.loads((run / "metrics.json").read_text())
    history = json.loads((run / "history.json").read_text())
    for record in history:
        del record["seconds"]
    for scores in (metrics, metrics.get("untrained", {})):
        scores.pop("protocol", None)  # of this version
    state.pop("genotype", None)  # a part that this version adds
    if make.instruction_set() == end["instruction_set"]:
        assert make.digest(state) == end["digest"]
        assert history == end["history"]
        assert metrics == end["metrics"]
    for record, recorded in zip(history, end["history"], strict=True):
        assert list(record) == list(recorded)
        for loss in (name for name in recorded if name.endswith("loss")):
            assert record[loss] == pytest.approx(recorded[loss], rel=1e-3)


def test_an_old_training_is_evaluated_exported_and_reported(
    old_run: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = old_run("train")
    evaluation = tmp_path / "evaluation.json"
    assert main(["eval", "--run", str(run), "--json", str(evaluation)]) == 0
    assert json.loads(evaluation.read_text())["num_query"] == 18
    exported = tmp_path / "exported.safetensors"
    assert main(["export", str(run), "--format", "safetensors", "--out", str(exported)]) == 0
    assert exported.exists()
    assert main(["report", str(run)]) == 0
    assert (run / "report" / "index.html").exists()
    capsys.readouterr()


def test_an_old_search_gives_its_genotype(
    old_run: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = old_run("search-darts")
    assert main(["derive", str(run)]) == 0
    history = json.loads((run / "history.json").read_text())
    assert json.loads(capsys.readouterr().out) == history[-1]["genotype"]


@pytest.mark.parametrize("name", RUNS)
def test_config_yaml_has_the_same_fields(name: str) -> None:
    """Fields that only another algorithm or data set has were recorded, too; they are accepted."""
    values = yaml.safe_load((FIXTURES / name / "config.yaml").read_text())
    config_class = CONFIGS[values.pop("command")]
    assert set(values) == set(config_class.known_fields())
    assert_same_values(config_class.model_validate(values).model_dump(mode="json"), values)


def assert_same_values(fields: dict[str, Any], values: dict[str, Any]) -> None:
    for name, value in fields.items():
        if isinstance(value, dict):
            assert_same_values(value, values[name])
        else:
            assert value == values[name], name


def test_state_dicts_keep_their_names_and_shapes(make: Any) -> None:
    recorded = json.loads((FIXTURES / "state_dicts.json").read_text())
    for name, digest in recorded.items():
        command, *words = name.split()
        if command == "search":
            chosen = dict(zip(("algorithm", "space", "supernet"), words, strict=False))
            config = SearchConfig.model_validate({"channels": 3, "cells_per_block": make.CELLS, **chosen})
            model = ReIDNetwork(SEARCH_ALGORITHMS[config.algorithm].builder.build_supernet(config), 5, 4, 0.5)
        else:
            network, tail = words
            model = ReIDNetwork(build_backbone(network, 3, make.CELLS), 5, 4, 0.5, tail)
        assert make.shapes_digest(model) == digest, name
