"""The paper's figures that reports show beside a training, against the tables printed in the paper."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from autoreid_fast.report.published import published

TABLE_1 = {
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "resnet50": "ResNet-50",
    "darts_v2": "DARTS",
    "gdas_v1": "GDAS",
    "autoreid_baseline": "Baseline (run 1)",
    "autoreid_base_reid": "Baseline + ReID Search Space (run 1)",
    "autoreid_retrieval": "Retrieval + ReID Search Space (run 1)",
    "runs/search": "Baseline + ReID Search Space (run 3)",  # Auto-ReID in the other tables
}
MARKET = {"kind": "market1501"}


@pytest.fixture
def tables(shared_data: Path) -> dict[str, Any]:
    return dict(json.loads((shared_data.parent / "paper" / "tables.json").read_text()))


def figures(**config: Any) -> Mapping[str, float]:
    row = published(config)
    assert row is not None
    return row.figures


def rank1_and_map(**config: Any) -> tuple[float, float]:
    row = figures(**config)
    return row["rank1"], row["mAP"]


@pytest.mark.parametrize(("network", "name"), TABLE_1.items())
def test_networks_trained_from_scratch(network: str, name: str, tables: dict[str, Any]) -> None:
    table = tables["table1_market1501_no_imagenet_pretraining"]
    rows = {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["rows"]}
    row = figures(data=MARKET, network=network)
    assert len(row) == 6
    assert row == {key: rows[name][key] for key in row}


def test_auto_reid_on_each_data_set(tables: dict[str, Any]) -> None:
    pretrained = tables["table3_market1501_imagenet_pretrained"]["rows"][-1]
    assert rank1_and_map(data=MARKET, network="runs/s", pretrained="x") == tuple(pretrained[3:])
    cuhk = tables["table5_cuhk03_new_protocol"]["rows"][-1]
    for boxes, expected in {"labeled": cuhk[1:3], "detected": cuhk[3:]}.items():
        data = {"kind": "cuhk03", "boxes": boxes}
        assert rank1_and_map(data=data, network="runs/s") == tuple(expected)
    msmt = tables["table6_msmt17"]["rows"][-1]
    assert rank1_and_map(data={"kind": "msmt17"}, network="runs/s") == (msmt[1], msmt[4])


def test_pcb_tails(tables: dict[str, Any]) -> None:
    rows = {row[0]: row for row in tables["table4_part_module_at_the_tail_no_pretraining"]["rows"]}
    for network, name in {
        "darts_v2": "DARTS+PCB",
        "gdas_v1": "GDAS+PCB",
        "autoreid_baseline": "Baseline+PCB",
    }.items():
        assert rank1_and_map(data=MARKET, network=network, tail="pcb") == (rows[name][2], rows[name][1])


@pytest.mark.parametrize(
    "config",
    [
        {"data": {"kind": "synthetic"}, "network": "runs/s"},
        {"data": {"kind": "msmt17"}, "network": "resnet50"},
        {"data": MARKET, "network": "darts_v1"},
        {"data": MARKET, "network": "resnet50", "tail": "pcb"},
        {"data": MARKET, "network": "darts_v2", "tail": "hpm"},
        {"data": MARKET, "network": "darts_v2", "tail": "pcb", "pretrained": "x"},
    ],
)
def test_runs_that_the_paper_does_not_have(config: dict[str, Any]) -> None:
    assert published(config) is None
