"""What TensorBoard gets beside numbers, and the paper's figures against its tables as data."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoreid_fast.report.board import watch_search, watch_training
from autoreid_fast.report.paper import published
from autoreid_fast.runs.folder import RunFolder

Make = Callable[..., Path]


class Writer:
    """Keeps what it is given, as SummaryWriter takes it."""

    def __init__(self) -> None:
        self.images: list[tuple[str, int]] = []
        self.histograms: list[tuple[str, int]] = []

    def add_image(self, tag: str, image: np.ndarray, step: int, dataformats: str) -> None:
        assert dataformats == "HWC" and image.dtype == np.uint8 and image.shape[2] == 3
        assert len(np.unique(image)) > 20  # something is drawn
        self.images.append((tag, step))

    def add_histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        assert values.shape == (14, 7)
        self.histograms.append((tag, step))


def test_a_search_shows_alpha_each_epoch_and_the_cells_when_they_change(
    make_search: Make, tmp_path: Path
) -> None:
    history = json.loads((make_search(tmp_path / "search") / "history.json").read_text())
    history[1]["genotype"] = history[0]["genotype"]
    observe, writer = watch_search(), Writer()
    for record in history:
        observe(writer, record)
    assert writer.images == [("cells", 0), ("cells", 2)]
    assert len(writer.histograms) == 6


def test_a_training_shows_ranked_lists_where_it_evaluates(make_training: Make, tmp_path: Path) -> None:
    observe, writer = watch_training(RunFolder(make_training(tmp_path / "run"))), Writer()
    observe(writer, {"epoch": 1, "loss": 1.0})
    observe(writer, {"epoch": 2, "loss": 1.0, "mAP": 0.5})
    assert writer.images == [("ranked lists", 1)]


def test_pictures_that_cannot_be_drawn_do_not_end_a_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="autoreid_fast"):
        watch_training(RunFolder(tmp_path))(Writer(), {"epoch": 2, "mAP": 0.5})
    assert [line.startswith("no pictures of epoch 2") for line in caplog.messages] == [True]


def test_the_papers_figures_are_those_of_its_tables(shared_data: Path) -> None:
    tables = json.loads((shared_data.parent / "paper" / "tables.json").read_text())
    table = tables["table1_market1501_no_imagenet_pretraining"]
    rows = {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["rows"]}
    networks = {
        "resnet18": "ResNet-18",
        "resnet34": "ResNet-34",
        "resnet50": "ResNet-50",
        "darts_v2": "DARTS",
        "gdas_v1": "GDAS",
        "autoreid_baseline": "Baseline (run 1)",
        "autoreid_base_reid": "Baseline + ReID Search Space (run 1)",
        "autoreid_retrieval": "Retrieval + ReID Search Space (run 1)",
        "runs/search": "Baseline + ReID Search Space (run 3)",  # the best: Table 4's Auto-ReID
    }
    for network, name in networks.items():
        row = published({"data": {"kind": "market1501"}, "network": network})
        assert row is not None
        figures = {key: value for key, value in row._asdict().items() if key != "where"}
        assert figures == {key: rows[name][key] for key in figures}

    def rank1_and_map(**config: Any) -> tuple[float, float]:
        row = published(config)
        assert row is not None
        return row.rank1, row.mAP

    market = {"kind": "market1501"}
    pretrained = tables["table3_market1501_imagenet_pretrained"]["rows"][-1]
    assert rank1_and_map(data=market, network="runs/s", pretrained="x") == tuple(pretrained[3:])
    cuhk = tables["table5_cuhk03_new_protocol"]["rows"][-1]
    boxes = {"labeled": tuple(cuhk[1:3]), "detected": tuple(cuhk[3:])}
    for name, expected in boxes.items():
        assert rank1_and_map(data={"kind": "cuhk03", "boxes": name}, network="runs/s") == expected
    msmt = tables["table6_msmt17"]["rows"][-1]
    assert rank1_and_map(data={"kind": "msmt17"}, network="runs/s") == (msmt[1], msmt[4])
    pcb = {row[0]: row for row in tables["table4_part_module_at_the_tail_no_pretraining"]["rows"]}
    for network, name in (("darts_v2", "DARTS+PCB"), ("gdas_v1", "GDAS+PCB")):
        expected = (pcb[name][2], pcb[name][1])
        assert rank1_and_map(data=market, network=network, tail="pcb") == expected
    assert published({"data": {"kind": "synthetic"}, "network": "runs/s"}) is None
    assert published({"data": {"kind": "msmt17"}, "network": "resnet50"}) is None
