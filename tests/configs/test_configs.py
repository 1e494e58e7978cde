"""Presets have the paper's numbers; a wrong config raises one line that names file and field."""

import os
import traceback
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from autoreid_fast.configs import from_values, load_config, preset_names
from autoreid_fast.data import DataConfig, load_dataset
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation.features import load_features
from autoreid_fast.losses import build_loss
from autoreid_fast.runs.folder import RunFolder, plain
from autoreid_fast.schema import Config, parse_json, read_yaml
from autoreid_fast.search.config import AlphaConfig, SearchConfig
from autoreid_fast.training.config import PretrainConfig, TrainConfig

COMMANDS = {"search": SearchConfig, "pretrain": PretrainConfig, "train": TrainConfig}

# Sec. 4.2, "Search Configurations"; the batch of 16 is 4 x 4 by Sec. 3.2's sampler.
PAPER_SEARCH: dict[str, Any] = {
    "data.height": 384,
    "data.width": 128,
    "space": "reid",
    "channels": 32,
    "cells_per_block": (2, 2, 2, 2),
    "epochs": 200,
    "batch.identities": 4,
    "batch.images": 4,
    "omega.learning_rate": 0.1,
    "omega.final_learning_rate": 0.001,
    "omega.momentum": 0.9,
    "omega.weight_decay": 0.0005,
    "alpha.learning_rate": 0.02,
    "alpha.decay_epochs": (60, 150),
    "alpha.weight_decay": 0.0005,
    "objective.loss": "retrieval",
    "objective.lambda_value": 0.5,
    "objective.margin": 0.3,
}
# Sec. 4.2, "Training Configurations", from scratch.
PAPER_TRAIN: dict[str, Any] = {
    "data.height": 384,
    "data.width": 128,
    "channels": 64,
    "cells_per_block": (2, 2, 2, 2),
    "epochs": 240,
    "batch.identities": 8,
    "batch.images": 4,
    "learning_rate": 0.0035,
    "decay_epochs": (80, 150),
    "weight_decay": 0.0005,
    "objective.loss": "retrieval",
    "objective.lambda_value": 0.5,
    "objective.margin": 0.3,
    "pretrained": None,
}
DATA = {
    "market1501-search": ("market1501", None),
    "msmt17-search": ("msmt17", None),
    "market1501-train": ("market1501", None),
    "msmt17-train": ("msmt17", None),
    "cuhk03-labeled-train": ("cuhk03", "labeled"),
    "cuhk03-detected-train": ("cuhk03", "detected"),
}


OTHERS = {"demo-search", "demo-train", "pku-search", "pku-train", "imagenet-pretrain"}


def value(config: Any, field: str) -> Any:
    for part in field.split("."):
        config = getattr(config, part)
    return config


def command_of(preset: str) -> str:
    return preset.rpartition("-")[2]


def test_every_preset_loads_for_its_command_and_for_no_other() -> None:
    everything = preset_names()
    assert sorted(name for command in COMMANDS for name in preset_names(command)) == everything
    assert set(DATA) | OTHERS == set(everything)
    for preset in everything:
        command = command_of(preset)
        assert isinstance(load_config(COMMANDS[command], preset, command), COMMANDS[command])
        other = "train" if command == "search" else "search"
        with pytest.raises(
            AutoReIDError, match=f"^{preset}: a config of `{command}`, expected one of `{other}`$"
        ):
            load_config(COMMANDS[other], preset, other)


@pytest.mark.parametrize("preset", DATA)
def test_presets_of_the_papers_data_sets_have_the_papers_numbers(preset: str) -> None:
    command = command_of(preset)
    config = load_config(COMMANDS[command], preset, command)
    paper = PAPER_SEARCH if command == "search" else PAPER_TRAIN
    assert {field: value(config, field) for field in paper} == paper
    kind, boxes = DATA[preset]
    assert config.data.kind == kind
    assert boxes is None or config.data.boxes == boxes


@pytest.mark.parametrize(("command", "paper"), [("search", PAPER_SEARCH), ("train", PAPER_TRAIN)])
def test_the_defaults_are_the_papers_numbers_too(command: str, paper: dict[str, Any]) -> None:
    config = COMMANDS[command]()
    assert {field: value(config, field) for field in paper} == paper


@pytest.mark.parametrize("preset", DATA)
def test_presets_of_the_paper_write_their_numbers_out(preset: str) -> None:
    """None of the paper's numbers is left to a default."""
    source = Path(__file__).parents[2] / "autoreid_fast" / "configs" / "presets" / f"{preset}.yaml"
    written = yaml.safe_load(source.read_text(encoding="utf-8"))
    for field in PAPER_SEARCH if command_of(preset) == "search" else set(PAPER_TRAIN) - {"pretrained"}:
        node = written
        for part in field.split("."):
            assert part in node, f"{preset} leaves {field} to a default"
            node = node[part]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "epoch: unknown field, did you mean epochs\\?"),
        ("omega: {momentun: 0.9}", "omega.momentun: unknown field, did you mean momentum\\?"),
        ("epochs: many", "epochs: .*integer.*'many'"),
        ("epochs: 0", "epochs: .*greater than or equal to 1.*got 0"),
        ("cells_per_block: [2, 2, 2]", r"cells_per_block\.3: missing; give it a value"),
        ("space: darts", "space: .*'darts'.*standard, reid"),
        ("data: market1501", "data: "),
        ("data: {height: tall}\nepochs: -1", "data.height: .*'tall'; epochs: .*-1"),
        ("1: 2", "1: "),
        ("- epochs", "expected fields, one per line"),
        ("", "expected fields, one per line"),
        ("epochs: [1", "not YAML"),
        ("command: train", "a config of `train`, expected one of `search`"),
        ("[" * 3000, "not YAML .nested more than 32 deep"),
    ],
)
def test_a_wrong_file_is_an_error_of_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(AutoReIDError, match=message) as error:
        load_config(SearchConfig, str(file), "search")
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["epochs: 2020-13-45", "[" * 3000, "a: ["])
def test_a_config_of_a_run_that_is_not_yaml(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(AutoReIDError, match=r"config\.yaml: not YAML") as error:
        RunFolder(tmp_path).command()
    assert "\n" not in str(error.value)


def test_an_unreadable_file_is_an_error_that_lists_the_presets(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for source in (tmp_path / "missing.yaml", tmp_path, binary):
        with pytest.raises(AutoReIDError, match="market1501-search") as error:
            load_config(SearchConfig, str(source), "search")
        assert str(source) in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("preset", preset_names())
def test_a_recorded_config_reads_back_equal(preset: str, tmp_path: Path) -> None:
    command = command_of(preset)
    config = load_config(COMMANDS[command], preset, command)
    root = {"root": tmp_path / "set"}
    update = {"data": config.data.model_copy(update=root)} if hasattr(config, "data") else root
    config = config.model_copy(update=update)
    run = RunFolder(tmp_path / "run")
    run.start(config, command)
    assert from_values(COMMANDS[command], run.recorded(command), "run") == config
    assert load_config(COMMANDS[command], str(run.config), command) == config


def test_a_run_records_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = TrainConfig.model_validate({"data": {"root": "sets/market", "cache_dir": "~/caches"}})
    run = RunFolder("runs/a")
    run.start(config, "train")
    recorded = run.recorded("train")["data"]
    assert recorded["root"] == str(tmp_path / "sets" / "market")
    assert recorded["cache_dir"] == str(tmp_path / "home" / "caches")
    assert recorded["distractors"] is None


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "not YAML"), ("", "not the config"), ("3", "not the")]
)
def test_a_damaged_recorded_config(tmp_path: Path, text: str, message: str) -> None:
    run = RunFolder(tmp_path)
    run.config.write_text(text, encoding="utf-8")
    with pytest.raises(AutoReIDError, match=message) as error:
        run.recorded("search")
    assert str(run.config) in str(error.value)
    assert "\n" not in str(error.value)


def test_halves_of_characters_are_refused_and_bytes_of_file_names_are_not() -> None:
    """Python reads the name of a file that is not in UTF-8 as such bytes."""
    with pytest.raises(AutoReIDError, match=r"not YAML .*surrogates not allowed"):
        read_yaml('root: "\\ud800"', "mine.yaml")
    assert read_yaml('root: "caf\\udce9"', "mine.yaml") == {"root": "caf\udce9"}


OLD_DATA: dict[str, Any] = {
    "root": "/sets/a",
    "height": 64,
    "width": 32,
    "distractors": None,
    "boxes": "labeled",
    "pattern": None,
    "train_share": 0.5,
    "train_identities": None,
    "query_cameras": None,
    "gallery_cameras": None,
    "query_share": 0.25,
    "split_seed": 0,
    "cache_dir": None,
    "max_unreadable_share": 0.01,
}
"""Config as recorded by versions before each data set had its own; all defaults."""


def test_a_field_given_twice_in_yaml_is_refused() -> None:
    for text in ("epochs: 3\nseed: 0\nepochs: 240\n", "data: {root: a, epochs: 1, epochs: 2}"):
        with pytest.raises(AutoReIDError, match=r"mine\.yaml: not YAML \(epochs is given twice, in lines 1"):
            read_yaml(text, "mine.yaml")
    merged = "base: &base {epochs: 3}\nsearch: {<<: *base, epochs: 4}\ntrain: {<<: *base}"
    assert read_yaml(merged, "mine.yaml")["search"] == {"epochs": 4}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("market1501", {"distractors": "/sets/500k"}),
        ("cuhk03", {"boxes": "detected"}),
        ("msmt17", {}),
        ("synthetic", {}),
        ("folder", {"pattern": r"(?P<pid>\d+)", "query_cameras": [1, 2], "gallery_cameras": [3]}),
    ],
)
def test_a_config_of_an_earlier_version_still_loads(kind: str, changes: dict[str, Any]) -> None:
    config = from_values(TrainConfig, {"data": {**OLD_DATA, "kind": kind, **changes}}, "config.yaml").data
    assert (config.kind, config.height, config.root) == (kind, 64, Path("/sets/a"))
    recorded = plain(config.model_dump())
    assert {field: recorded[field] for field in changes} == changes
    other = "cuhk03" if kind == "market1501" else "market1501"
    if changes:
        field = next(iter(changes))
        with pytest.raises(AutoReIDError, match=rf"data\.{field}: a field of kind {kind}, not of {other}"):
            from_values(TrainConfig, {"data": {**OLD_DATA, "kind": other, **changes}}, "config.yaml")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epochs": 0}, "TrainConfig: epochs: expected a value greater than or equal to 1, got 0"),
        ({"epoch": 3}, r"TrainConfig: epoch: unknown field, did you mean epochs\?"),
        ({"lr": 0.1}, r"TrainConfig: lr: unknown field, did you mean learning_rate\?"),
        ({"batch": {"identities": 0}}, "TrainConfig: batch.identities: expected a value greater"),
        ({"batch": {"imgs": 2}}, r"batch\.imgs: unknown field, did you mean images\?"),
        ({"data": {"kind": "folders"}}, r"data\.kind: unknown data set 'folders': did you mean folder\?"),
        ({"epochs": 0, "dropout": 2}, "dropout: .*; epochs: "),
    ],
)
def test_a_config_made_in_python_has_errors_of_one_line(values: dict[str, Any], words: str) -> None:
    with pytest.raises(AutoReIDError, match=words) as caught:
        TrainConfig(**values)
    printed = "".join(traceback.format_exception(caught.value))
    assert "validation error" not in printed and "pydantic.dev" not in printed


def test_a_config_cannot_be_changed() -> None:
    config = TrainConfig()
    with pytest.raises(AutoReIDError, match="TrainConfig: epochs cannot be changed; make another config"):
        config.epochs = 3  # type: ignore[misc]
    assert config.model_copy(update={"epochs": 3}).epochs == 3


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("market1501-tran", r"did you mean market1501-train\?$"),
        ("MSMT17-train", r"did you mean msmt17-train\?$"),
        ("nothing-like-it", "expected a YAML file or one of the presets cuhk03-detected-train, "),
    ],
)
def test_an_unknown_preset_gets_a_suggestion_or_the_list(source: str, words: str) -> None:
    with pytest.raises(AutoReIDError, match=f"config {source}: No such file or directory; {words}"):
        load_config(TrainConfig, source, "train")


@pytest.mark.parametrize(
    ("function", "config", "words"),
    [
        (build_loss, "ce", r"config is a str; expected ObjectiveConfig"),
        (load_dataset, {"kind": "folder"}, "config is a dict; expected DataConfig"),
        (load_dataset, DataConfig, "config is the class DataConfig; expected DataConfig"),
    ],
)
def test_functions_name_what_is_no_config(function: Any, config: Any, words: str) -> None:
    with pytest.raises(AutoReIDError, match=words):
        function(config)


@pytest.mark.parametrize(
    "line",
    [
        "seed: 9223372036854775808",
        "seed: 1:30",
        "learning_rate: .inf",
        "weight_decay: .nan",
        "cells_per_block: [2, 1000000, 2, 2]",
        "channels: 1000000000",
        "batch: {identities: 99999999999999999999}",
        "data: {height: 1000000000}",
        f"epochs: {'9' * 5000}",
        "decay_epochs: [10000000000000000000000]",
        "decay_epochs: [8, -1]",
        "data: &a {root: x, b: *a}",
        "a: &a [0, 0, 0, 0]\n"
        + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n" for a, b in pairwise("abcdefghijk")),
        "a: &a {x: 0, y: 0}\n"
        + "".join(f"{b}: &{b} {{<<: [*{a}, *{a}, *{a}, *{a}]}}\n" for a, b in pairwise("abcdefghijk")),
    ],
)
def test_hostile_values_are_one_line(line: str) -> None:
    with pytest.raises(AutoReIDError, match=r"^mine\.yaml: ") as error:
        from_values(TrainConfig, read_yaml(line, "mine.yaml"), "mine.yaml")
    assert len(str(error.value)) < 700


@pytest.mark.parametrize("config_class", [TrainConfig, PretrainConfig, AlphaConfig])
def test_milestones_have_the_bounds_of_epochs(config_class: type[Config]) -> None:
    assert from_values(config_class, {"decay_epochs": [0, 1_000_000]}, "x").decay_epochs == (0, 1_000_000)  # type: ignore[attr-defined]
    for wrong in (-1, 1_000_001):
        with pytest.raises(AutoReIDError, match=r"^x: decay_epochs\.1: expected a value (less|greater) than"):
            from_values(config_class, {"decay_epochs": [5, wrong]}, "x")


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "1" * 4500, "1" * 1001])
def test_numbers_of_thousands_of_digits_are_one_line(number: str, tmp_path: Path) -> None:
    """In YAML, JSON, CSV and options alike, without Python's advice to change the interpreter's limit."""
    wrong = rf"a number of {len(number):,} digits; expected at most 1,000"
    with pytest.raises(AutoReIDError, match=rf"^m\.yaml: not YAML \({wrong}\)$"):
        read_yaml(f"seed: 1\nepochs: {number}", "m.yaml")
    with pytest.raises(AutoReIDError, match=rf"^m\.json: not JSON \({wrong}\)$"):
        parse_json(f'{{"epochs": [{number}]}}', "m.json")
    np.save(tmp_path / "query.npy", np.ones((1, 2), np.float32))
    (tmp_path / "query.csv").write_text(f"path,pid,camera\na.jpg,{number},1\n")
    with pytest.raises(
        AutoReIDError, match=rf"query\.csv, line 2: pid is '[-\d.]{{20,40}}': {wrong}"
    ) as error:
        load_features(tmp_path, "query")
    assert len(str(error.value).splitlines()) == 1
    if len(number) > 4300:
        with pytest.raises(AutoReIDError, match=r"^train: epochs: expected a number of at most 1,000 digits"):
            from_values(TrainConfig, {"epochs": number}, "train")
    assert read_yaml(f"a: {'9' * 1000}", "y") == parse_json(f'{{"a": {"9" * 1000}}}', "j")


def test_anchors_and_merges_are_read() -> None:
    text = "data: &data {height: 64}\nother: {<<: *data, width: 32}\n"
    assert read_yaml(text, "mine.yaml")["other"] == {"height": 64, "width": 32}


def test_configs_come_from_open_pipes_and_no_other_special_file(tmp_path: Path) -> None:
    """A shell's <(...) is an open pipe; a pipe that nobody writes to would be waited for."""
    reader, writer = os.pipe()
    os.write(writer, b"epochs: 7")
    os.close(writer)
    assert load_config(TrainConfig, f"/dev/fd/{reader}", "train").epochs == 7
    os.close(reader)
    (tmp_path / "config.yaml").symlink_to("/dev/null")
    with pytest.raises(AutoReIDError, match=r"config\.yaml: not a regular file; expected a YAML file"):
        load_config(TrainConfig, str(tmp_path / "config.yaml"), "train")


def test_a_fraction_beyond_every_integer_is_one_line() -> None:
    with pytest.raises(AutoReIDError, match=r"^x: seed: expected a whole number below 2\^63, got 9\.3e\+18$"):
        from_values(TrainConfig, {"seed": 9.3e18}, "x")
