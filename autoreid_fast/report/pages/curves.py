"""Sections of curves: training history, CMC, histogram of AP."""

from collections.abc import Sequence

from autoreid_fast.report.pages.charts import Drawings, charts_section
from autoreid_fast.report.pages.page import Section
from autoreid_fast.report.plots.curves import (
    average_precision_figure,
    cmc_figure,
    comparison_figures,
    history_figures,
)
from autoreid_fast.report.run_view import RunView, evaluations_of


def history_section(run: RunView, drawings: Drawings, title: str, anchor: str) -> Section | None:
    """Losses, learning rates and other values that the epochs recorded."""
    if not run.history:
        return None
    charts = {f"{anchor}-{name}": chart for name, chart in history_figures(run.history).items()}
    return charts_section(anchor, title, charts, drawings)


def comparison_section(runs: Sequence[RunView], drawings: Drawings) -> Section | None:
    """Histories of several runs, one chart per field."""
    charts = comparison_figures({run.name: run.history for run in runs})
    return charts_section("curves", "Curves", charts, drawings) if charts else None


def ranking_section(runs: Sequence[RunView], drawings: Drawings) -> Section | None:
    """CMC curves of all runs and their evaluations, and the histogram of the first one's APs."""
    views = [view for run in runs for view in (run, *evaluations_of(run))]
    retrieval = {view.name: view.retrieval for view in views if view.retrieval}
    if not retrieval:
        return None
    first = next(iter(retrieval))
    charts = {
        "cmc": cmc_figure({name: record["cmc"] for name, record in retrieval.items()}),
        "average-precision": average_precision_figure(
            retrieval[first]["average_precision"], first if len(retrieval) > 1 else ""
        ),
    }
    return charts_section("cmc", "CMC and AP", charts, drawings)
