"""The paper's tables as data, and the runs planned for them."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from autoreid_fast.data.config import DataConfig
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.models.registry import BACKBONES, build_backbone
from autoreid_fast.nas.input_size import check_input_size
from autoreid_fast.nas.published import GENOTYPES
from autoreid_fast.paper.tables import TableNumber, load_table
from autoreid_fast.search.config import SearchConfig
from autoreid_fast.tables.plan import Entry, TableSetup, Task, choose_rows, plan
from autoreid_fast.tables.scale import ScaleName, synthetic_data
from autoreid_fast.training.config import PretrainConfig, TrainConfig

NUMBERS = get_args(TableNumber)
PAPER = {1: "table1_", 2: "table2_", 3: "table3_", 4: "table4_", 5: "table5_", 6: "table6_"}
# rows, rows to run, results, searches and pre-trainings of each table
SIZES = {
    1: (17, 17, 17, 12, 0),
    2: (16, 16, 16, 4, 0),
    3: (17, 9, 9, 0, 3),
    4: (7, 7, 7, 0, 0),
    5: (10, 3, 6, 0, 3),
    6: (6, 3, 3, 0, 3),
}


def setup_in(tmp_path: Path, **changes: Any) -> TableSetup:
    data = DataConfig(root=tmp_path / "set")
    setup = TableSetup(tmp_path / "out", data, tmp_path / "imagenet", {}, "auto", "full")
    return setup._replace(**changes)


def planned(
    number: TableNumber, setup: TableSetup, seeds: tuple[int, ...] = (0,)
) -> tuple[list[Entry], list[Task]]:
    table = load_table(number)
    return plan(table, table.rows, seeds, setup)


@pytest.mark.parametrize("number", NUMBERS)
def test_specs_hold_the_figures_that_the_paper_prints(number: TableNumber, shared_data: Path) -> None:
    tables = json.loads((shared_data.parent / "paper" / "tables.json").read_text())
    printed = next(value for name, value in tables.items() if name.startswith(PAPER[number]))
    table = load_table(number)
    expected = []
    for row in printed["rows"] + printed.get("rows_with_k_reciprocal_re_ranking", []):
        values = dict(zip(printed["columns"], row, strict=True))
        if number == 3 and not str(values["params_M"]).startswith(">"):
            values["params_M"] = float(values["params_M"])
        expected.append(tuple(values[column] for column in table.columns))
    assert [row.paper for row in table.rows] == expected


@pytest.mark.parametrize("number", NUMBERS)
def test_every_row_is_planned_once(number: TableNumber, tmp_path: Path) -> None:
    table = load_table(number)
    entries, tasks = planned(number, setup_in(tmp_path))
    commands = Counter(task.command for task in tasks)
    runnable = [row for row in table.rows if row.runs]
    sizes = (len(table.rows), len(runnable), len(entries), commands["search"], commands["pretrain"])
    assert sizes == SIZES[number]
    assert len({row.name for row in table.rows}) == len(table.rows)
    assert len({task.result for task in tasks}) == len(tasks)
    assert {entry.row for entry in entries} == {row.name for row in runnable}
    planned_before: set[Path] = set()
    for task in tasks:
        assert set(task.after) <= planned_before
        planned_before.add(task.result)


def test_full_scale_has_the_papers_settings(tmp_path: Path) -> None:
    for number in NUMBERS:
        for task in planned(number, setup_in(tmp_path))[1]:
            config = task.config
            if isinstance(config, SearchConfig):
                assert (config.epochs, config.batch.identities, config.data.height) == (200, 4, 384)
            elif isinstance(config, TrainConfig):
                identities = 16 if number in (3, 5, 6) else 8
                assert (config.epochs, config.batch.identities, config.data.height) == (240, identities, 384)
                assert (config.channels == 64) == (number != 2)
                assert (config.pretrained is not None) == (number in (3, 5, 6))
                assert config.data.root == tmp_path / "set"
            elif isinstance(config, PretrainConfig):
                assert config.root == tmp_path / "imagenet"


def test_table_1_rows_and_their_searches_agree(tmp_path: Path) -> None:
    entries, tasks = planned(1, setup_in(tmp_path))
    searches = {task.run: task.config for task in tasks if task.command == "search"}
    kinds = []
    for entry in entries:
        train = entry.task.config
        assert isinstance(train, TrainConfig)
        assert train.objective.loss == "retrieval"  # L_ret for all trainings, whatever the search used
        search = searches.get(Path(train.network))
        if isinstance(search, SearchConfig):
            assert ("ReID Search Space" in entry.row) == (search.space == "reid")
            assert entry.row.startswith("Retrieval") == (search.objective.loss == "retrieval")
            assert entry.row.endswith(f"(run {search.seed})")
            kinds.append((search.space, search.objective.loss, search.seed))
    assert len(set(kinds)) == len(kinds) == 12


def test_table_2_is_a_grid_of_c_and_l(tmp_path: Path) -> None:
    searches = {
        task.run: task.config for task in planned(2, setup_in(tmp_path))[1] if task.command == "search"
    }
    grid = []
    for entry in planned(2, setup_in(tmp_path))[0]:
        train = entry.task.config
        assert isinstance(train, TrainConfig)
        search = searches[Path(train.network)]
        assert isinstance(search, SearchConfig)
        grid.append((search.channels, search.cells_per_block, train.channels, train.cells_per_block))
        sizes = (grid[-1][:2], grid[-1][2:])
        shown = [f"C={channels} l={''.join(map(str, cells))}" for channels, cells in sizes]
        assert entry.row == f"search {shown[0]}, train {shown[1]}"
    all_sizes = [(channels, cells) for channels in (16, 32) for cells in ((2, 2, 2, 2), (3, 4, 6, 3))]
    assert grid == [(*one, *two) for one in all_sizes for two in all_sizes]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(("scale", "search_epochs", "train_epochs"), [("small", 1, 6), ("demo", 12, 24)])
def test_configs_of_each_scale_are_valid(
    number: TableNumber, scale: ScaleName, search_epochs: int, train_epochs: int, tmp_path: Path
) -> None:
    """Networks accept their sizes; checked without running any."""
    data = synthetic_data(tmp_path)
    size = (data.height, data.width)
    for task in planned(number, setup_in(tmp_path, data=data, scale=scale))[1]:
        config = task.config
        with torch.device("meta"):
            if isinstance(config, SearchConfig):
                check_input_size(*size, config.space, config.cells_per_block)
                assert config.channels >= 3  # required by part_aware
                assert config.epochs == search_epochs
            elif isinstance(config, TrainConfig | PretrainConfig) and config.network in BACKBONES:
                build_backbone(config.network, config.channels, config.cells_per_block)
                if config.network in GENOTYPES:
                    check_input_size(*size, GENOTYPES[config.network], config.cells_per_block)
        if isinstance(config, TrainConfig):
            assert config.epochs == train_epochs


def test_seeds_repeat_search_and_training_but_not_pre_training(tmp_path: Path) -> None:
    tasks = planned(1, setup_in(tmp_path), (0, 1))[1]
    seeds = {task.config.seed for task in tasks if isinstance(task.config, SearchConfig)}
    assert seeds == {1, 2, 3, 4, 11, 12, 13, 14}
    assert {task.config.seed for task in tasks if isinstance(task.config, TrainConfig)} == {0, 1}
    commands = Counter(task.command for task in planned(6, setup_in(tmp_path), (0, 1, 2))[1])
    assert commands == {"pretrain": 3, "train": 9}


def test_given_weights_are_not_trained_again(tmp_path: Path) -> None:
    weights = {"resnet50": tmp_path / "resnet50.pth"}
    tasks = planned(6, setup_in(tmp_path, pretrained=weights))[1]
    assert Counter(task.command for task in tasks) == {"pretrain": 2, "train": 3}
    pcb = next(task.config for task in tasks if task.name.startswith("PCB"))
    assert isinstance(pcb, TrainConfig)
    assert (pcb.pretrained, pcb.tail, pcb.last_stride) == (weights["resnet50"], "pcb", 1)
    with pytest.raises(AutoReIDError, match=r"weights of autoreid_baseline: give --imagenet.*--pretrained"):
        planned(6, setup_in(tmp_path, pretrained=weights, imagenet=None))


def test_choose_rows_by_pattern() -> None:
    table = load_table(4)
    assert [row.name for row in choose_rows(table, ["darts*", "Auto-ReID"])] == [
        "DARTS",
        "DARTS+PCB",
        "Auto-ReID",
    ]
    assert choose_rows(table, []) == table.rows
    with pytest.raises(AutoReIDError, match="rows 'PCB': no such row; expected one of DARTS, GDAS"):
        choose_rows(table, ["PCB"])
    with pytest.raises(AutoReIDError, match="nothing to run"):
        choose_rows(load_table(3), ["PAN*"])


def test_a_re_ranked_row_needs_the_training_of_its_row(tmp_path: Path) -> None:
    table = load_table(3)
    entries, tasks = plan(table, choose_rows(table, ["baseline + rk"]), (0,), setup_in(tmp_path))
    assert [task.command for task in tasks] == ["pretrain", "train", "rank"]
    assert [entry.row for entry in entries] == ["Baseline + RK"]
    assert tasks[2].run == tasks[1].run
