"""What TensorBoard shows of a run beside its numbers: alpha's histograms, the cells, ranked lists."""

import json
import logging
from typing import Any

import numpy as np

from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.report.cell import genotype_figure
from autoreid_fast.report.ranked import ranked_figure
from autoreid_fast.report.sections import ranked_list
from autoreid_fast.report.theme import pixels
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.training.loop import EpochRecord, Observe

logger = logging.getLogger("autoreid_fast")


def watch_search() -> Observe:
    """After each epoch of a search: histograms of alpha, and the cells where they have changed."""
    drawn: Genotype | None = None

    def observe(writer: Any, record: EpochRecord) -> None:
        nonlocal drawn
        for cell in ("normal", "reduce"):
            writer.add_histogram(f"alpha_{cell}", np.array(record[f"alpha_{cell}"]), record["epoch"] - 1)
        genotype = Genotype(**record["genotype"])
        if genotype != drawn:
            drawn = genotype
            writer.add_image(
                "cells", pixels(genotype_figure(genotype)), record["epoch"] - 1, dataformats="HWC"
            )

    return _never_fatal(observe)


def watch_training(run: RunFolder) -> Observe:
    """After each epoch of a training that evaluates: the best, a typical and the worst query's lists."""

    def observe(writer: Any, record: EpochRecord) -> None:
        if "mAP" not in record:
            return
        lists = json.loads(run.retrieval.read_text(encoding="utf-8"))["lists"]
        first = {ranked["kind"]: ranked for ranked in reversed(lists)}
        shown = [ranked_list(first[kind]) for kind in ("best", "typical", "worst") if kind in first]
        if shown:
            image = pixels(ranked_figure(shown))
            writer.add_image("ranked lists", image, record["epoch"] - 1, dataformats="HWC")

    return _never_fatal(observe)


def _never_fatal(observe: Observe) -> Observe:
    """Pictures that cannot be drawn are a line in the log, not the end of a run."""

    def careful(writer: Any, record: EpochRecord) -> None:
        try:
            observe(writer, record)
        except Exception as error:
            reason = " ".join(str(error).split())
            logger.warning("no pictures of epoch %d: %s: %s", record["epoch"], type(error).__name__, reason)

    return careful
