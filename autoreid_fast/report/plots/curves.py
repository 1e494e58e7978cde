"""Line charts and histograms: values over epochs, match rates over ranks, queries over AP."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.report.plots.theme import COLORS, line_style, new_figure, series_color, style

WIDTH, HEIGHT = 480, 270
MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 46, 8, 34, 44

History = Sequence[Mapping[str, Any]]
"""A run's ``history.json``: one record per epoch."""

Line = tuple[Sequence[float], Sequence[float]]
"""The x and y values of a line."""


class Chart(NamedTuple):
    """Chart of a history: the name of its files, its title, and the fields of the records that it shows."""

    name: str
    title: str
    fields: tuple[str, ...]


CHARTS = (
    Chart("losses", "Losses", ("omega_loss", "alpha_loss", "loss", "cross_entropy", "triplet")),
    Chart("rates", "Learning rates", ("omega_learning_rate", "alpha_learning_rate", "learning_rate")),
    Chart("entropy", "Entropy of alpha, nats", ("entropy_normal", "entropy_reduce")),
    Chart("retrieval", "Retrieval, %", ("rank1", "mAP")),
)
PERCENT_FIELDS = ("rank1", "mAP")
"""Fields that records hold as fractions and charts show in per cent."""

LABELS = {
    "omega_loss": "omega, on D_train",
    "alpha_loss": "alpha, on D_val",
    "loss": "total",
    "cross_entropy": "cross entropy",
    "triplet": "triplet",
    "omega_learning_rate": "omega",
    "alpha_learning_rate": "alpha",
    "learning_rate": "all weights",
    "entropy_normal": "normal cell",
    "entropy_reduce": "reduction cell",
    "rank1": "rank-1",
}


def history_figures(history: History) -> dict[str, Figure]:
    """Charts of one run's history, by name; only those that have data."""
    figures = {}
    for chart in CHARTS:
        lines = {LABELS.get(field, field): _line(history, field) for field in chart.fields}
        lines = _drop_empty(lines)
        if lines:
            figures[chart.name] = line_chart(chart.title, lines, "epoch", logarithmic=chart.name == "rates")
    return figures


def comparison_figures(histories: Mapping[str, History]) -> dict[str, Figure]:
    """One chart per field that two or more histories recorded, with one line per run."""
    figures = {}
    for chart in CHARTS:
        for field in chart.fields:
            lines = _drop_empty({run: _line(history, field) for run, history in histories.items()})
            if len(lines) > 1:
                title = f"{chart.title}: {LABELS.get(field, field)}"
                figures[field] = line_chart(title, lines, "epoch", logarithmic=chart.name == "rates")
    return figures


def _line(history: History, field: str) -> Line:
    """The epochs that recorded ``field``, and its values."""
    scale = 100 if field in PERCENT_FIELDS else 1
    records = [record for record in history if field in record]
    return [record["epoch"] for record in records], [scale * record[field] for record in records]


def _drop_empty(lines: Mapping[str, Line]) -> dict[str, Line]:
    return {label: line for label, line in lines.items() if line[0]}


def line_chart(title: str, lines: Mapping[str, Line], x_label: str, logarithmic: bool = False) -> Figure:
    """Chart with one line per entry of ``lines``, and a legend if there is more than one.

    A logarithmic y axis is used only if all values are positive.
    """
    with style():
        figure, axes = _empty_chart()
        for index, (label, (x, y)) in enumerate(lines.items()):
            marker = "o" if len(x) < 12 else ""
            line = axes.plot(x, y, color=series_color(index), label=label, marker=marker, markersize=3.5)
            line[0].set_linestyle(line_style(index))
        if logarithmic and all(min(y) > 0 for _, y in lines.values()):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(lambda value, _: np.format_float_positional(value, trim="-"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set(title=title, xlabel=x_label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        if len(lines) > 1:
            axes.legend()
    return figure


def cmc_figure(curves: Mapping[str, Sequence[float]]) -> Figure:
    """CMC curves by label: the percentage of queries with a match at or before each rank."""
    with style():
        figure, axes = _empty_chart()
        for index, (label, curve) in enumerate(curves.items()):
            percent = 100 * np.asarray(curve)
            ranks = range(1, len(percent) + 1)
            axes.plot(ranks, percent, color=series_color(index), label=label, linestyle=line_style(index))
            marked = [rank for rank in (1, 5, 10) if rank <= len(percent)]
            axes.plot(marked, percent[np.array(marked) - 1], "o", color=series_color(index), markersize=4.5)
            if len(curves) == 1:
                _annotate_ranks(axes, percent, marked)
        axes.set(title="CMC: queries with a match by rank, %", xlabel="rank", ylim=(0, 101))
        axes.set_xlim(0.3, None)
        if len(curves) > 1:
            axes.legend(loc="lower right")
    return figure


def _annotate_ranks(axes: Axes, percent: np.ndarray, ranks: Sequence[int]) -> None:
    for rank in ranks:
        value = percent[rank - 1]
        axes.annotate(f"{value:.1f}", (rank, value), xytext=(6, -12), textcoords="offset points", size=10)


def average_precision_figure(average_precision: Sequence[float | None], run: str = "") -> Figure:
    """Histogram of the queries' APs, with their mean.

    Args:
        average_precision: one fraction per query, None for a query without a valid match.
        run: name of the run, for the title of a page of several runs.

    Raises:
        AutoReIDError: no query has a valid match.
    """
    values = 100 * np.array([value for value in average_precision if value is not None])
    if not len(values):
        raise AutoReIDError("retrieval.json: no query has an AP")
    mean = values.mean()
    with style():
        figure, axes = _empty_chart()
        axes.hist(values, bins=np.linspace(0, 100, 21).tolist(), color=COLORS["blue"], rwidth=0.9)
        axes.margins(y=0.18)
        axes.axvline(mean, color=COLORS["orange"], linewidth=1.6)
        axes.annotate(
            f"mAP {mean:.1f}",
            (mean, 1),
            xycoords=("data", "axes fraction"),
            xytext=(5, -4) if mean < 75 else (-5, -4),
            textcoords="offset points",
            ha="left" if mean < 75 else "right",
            va="top",
            color=COLORS["orange"],
        )
        axes.grid(False, axis="x")
        axes.set(title=f"Queries by AP{run and f', {run}'}", xlabel="AP, %", xlim=(0, 100))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    return figure


def _empty_chart() -> tuple[Figure, Axes]:
    figure = new_figure(WIDTH, HEIGHT)
    width, height = WIDTH - MARGIN_LEFT - MARGIN_RIGHT, HEIGHT - MARGIN_TOP - MARGIN_BOTTOM
    box = (MARGIN_LEFT / WIDTH, MARGIN_BOTTOM / HEIGHT, width / WIDTH, height / HEIGHT)
    return figure, figure.add_axes(box)
