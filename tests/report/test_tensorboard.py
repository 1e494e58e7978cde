"""Images and histograms for TensorBoard."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from autoreid_fast.report.tensorboard import watch_search, watch_training
from autoreid_fast.runs.folder import RunFolder

Make = Callable[..., Path]


class Writer:
    """Stand-in for SummaryWriter that records the calls."""

    def __init__(self) -> None:
        self.images: list[tuple[str, int]] = []
        self.histograms: list[tuple[str, int]] = []

    def add_image(self, tag: str, image: np.ndarray, step: int, dataformats: str) -> None:
        assert dataformats == "HWC" and image.dtype == np.uint8 and image.shape[2] == 3
        assert len(np.unique(image)) > 20  # not blank
        self.images.append((tag, step))

    def add_histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        assert values.shape == (14, 7)
        self.histograms.append((tag, step))


def test_search_writes_alpha_every_epoch_and_cells_on_change(make_search: Make, tmp_path: Path) -> None:
    history = json.loads((make_search(tmp_path / "search") / "history.json").read_text())
    history[1]["genotype"] = history[0]["genotype"]
    observe, writer = watch_search(), Writer()
    for record in history:
        observe(writer, record)
    assert writer.images == [("cells", 0), ("cells", 2)]
    assert len(writer.histograms) == 6


def test_training_writes_ranked_lists_after_an_evaluation(make_training: Make, tmp_path: Path) -> None:
    observe, writer = watch_training(RunFolder(make_training(tmp_path / "run"))), Writer()
    observe(writer, {"epoch": 1, "loss": 1.0})
    observe(writer, {"epoch": 2, "loss": 1.0, "mAP": 0.5})
    assert writer.images == [("ranked lists", 1)]


def test_a_drawing_error_is_only_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="autoreid_fast"):
        watch_training(RunFolder(tmp_path))(Writer(), {"epoch": 2, "mAP": 0.5})
    assert [line.startswith("no images of epoch 2") for line in caplog.messages] == [True]
