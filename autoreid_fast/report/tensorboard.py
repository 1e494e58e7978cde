"""Images and histograms of a run for TensorBoard, written after each epoch.

A figure that cannot be drawn is a warning in the log; it never ends the run.
"""

import json
import logging
from typing import Any

import numpy as np

from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.report.ranked_list import ranked_list
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.training.checkpointing import EpochRecord
from autoreid_fast.training.loop import Observe

logger = logging.getLogger("autoreid_fast")


def watch_search() -> Observe:
    """Observer of a search: histograms of alpha after each epoch, and the cells when they have changed."""
    last: Genotype | None = None

    def observe(writer: Any, record: EpochRecord) -> None:
        from autoreid_fast.report.plots.cells import genotype_figure
        from autoreid_fast.report.plots.theme import pixels

        nonlocal last
        step = record["epoch"] - 1
        for cell in ("normal", "reduce"):
            writer.add_histogram(f"alpha_{cell}", np.array(record[f"alpha_{cell}"]), step)
        genotype = Genotype(**record["genotype"])
        if genotype != last:
            last = genotype
            writer.add_image("cells", pixels(genotype_figure(genotype)), step, dataformats="HWC")

    return _log_errors(observe)


def watch_training(run: RunFolder) -> Observe:
    """Observer of a training: ranked lists of the best, a typical and the worst query of each evaluation."""

    def observe(writer: Any, record: EpochRecord) -> None:
        if "mAP" not in record:
            return
        from autoreid_fast.report.plots.ranked_lists import ranked_lists_figure
        from autoreid_fast.report.plots.theme import pixels

        records = json.loads(run.retrieval.read_text(encoding="utf-8"))["lists"]
        first_of_kind = {ranked["kind"]: ranked for ranked in reversed(records)}
        kinds = [kind for kind in ("best", "typical", "worst") if kind in first_of_kind]
        if kinds:
            figure = ranked_lists_figure([ranked_list(first_of_kind[kind]) for kind in kinds])
            writer.add_image("ranked lists", pixels(figure), record["epoch"] - 1, dataformats="HWC")

    return _log_errors(observe)


def _log_errors(observe: Observe) -> Observe:
    def observe_safely(writer: Any, record: EpochRecord) -> None:
        try:
            observe(writer, record)
        except Exception as error:
            reason = " ".join(str(error).split())
            logger.warning("no images of epoch %d: %s: %s", record["epoch"], type(error).__name__, reason)

    return observe_safely
