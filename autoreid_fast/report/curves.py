"""Charts of numbers: over the epochs, over the ranks, over the queries."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from autoreid_fast.report.theme import COLORS, dashes, new_figure, series, style

WIDTH, HEIGHT = 480, 270
Points = tuple[Sequence[float], Sequence[float]]
"""The x and the y of a line."""

GROUPS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("losses", "Losses", ("omega_loss", "alpha_loss", "loss", "cross_entropy", "triplet")),
    ("rates", "Learning rates", ("omega_learning_rate", "alpha_learning_rate", "learning_rate")),
    ("entropy", "Entropy of alpha, nats", ("entropy_normal", "entropy_reduce")),
    ("retrieval", "Retrieval, %", ("rank1", "mAP")),
)
"""The charts of a history: name, title, and the figures of a record that stand in it."""

_LABELS = {
    "omega_loss": "omega, on D_train",
    "alpha_loss": "alpha, on D_val",
    "loss": "total",
    "cross_entropy": "cross entropy",
    "triplet": "triplet",
    "omega_learning_rate": "omega",
    "alpha_learning_rate": "alpha",
    "learning_rate": "of all weights",
    "entropy_normal": "normal cell",
    "entropy_reduce": "reduction cell",
    "rank1": "rank-1",
}


def points(history: Sequence[Mapping[str, Any]], figure: str) -> Points:
    """The epochs that recorded ``figure``, and its values; shares in per cent."""
    scale = 100 if figure in ("rank1", "mAP") else 1
    records = [record for record in history if figure in record]
    return [record["epoch"] for record in records], [scale * record[figure] for record in records]


def history_figures(history: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """The charts of one run's history, by name."""
    figures = {}
    for name, title, members in GROUPS:
        lines = {_LABELS.get(member, member): points(history, member) for member in members}
        lines = {label: line for label, line in lines.items() if line[0]}
        if lines:
            figures[name] = line_chart(title, lines, "epoch", logarithmic=name == "rates")
    return figures


def compared_figures(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Figure]:
    """A chart for each figure that two histories or more recorded, a line for each run."""
    figures = {}
    for name, title, members in GROUPS:
        for member in members:
            lines = {run: points(history, member) for run, history in histories.items()}
            lines = {run: line for run, line in lines.items() if line[0]}
            if len(lines) > 1:
                heading = f"{title}: {_LABELS.get(member, member)}"
                figures[member] = line_chart(heading, lines, "epoch", logarithmic=name == "rates")
    return figures


def line_chart(title: str, lines: Mapping[str, Points], x_label: str, logarithmic: bool = False) -> Figure:
    """One axes with a line for each entry; a legend where there is more than one."""
    with style():
        figure, axes = _chart()
        for index, (label, (x, y)) in enumerate(lines.items()):
            marker = "o" if len(x) < 12 else ""
            line = axes.plot(x, y, color=series(index), label=label, marker=marker, markersize=3.5)
            line[0].set_linestyle(dashes(index))
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
    """The share of queries with a match at each rank or before, a curve a ranking."""
    with style():
        figure, axes = _chart()
        for index, (label, curve) in enumerate(curves.items()):
            shares = 100 * np.asarray(curve)
            ranks = range(1, len(shares) + 1)
            axes.plot(ranks, shares, color=series(index), label=label, linestyle=dashes(index))
            marked = [rank for rank in (1, 5, 10) if rank <= len(shares)]
            axes.plot(marked, shares[np.array(marked) - 1], "o", color=series(index), markersize=4.5)
            if len(curves) == 1:
                for rank in marked:
                    axes.annotate(
                        f"{shares[rank - 1]:.1f}",
                        (rank, shares[rank - 1]),
                        xytext=(6, -12),
                        textcoords="offset points",
                        size=10,
                    )
        axes.set(title="CMC: queries with a match by rank, %", xlabel="rank", ylim=(0, 101))
        axes.set_xlim(0.3, None)
        if len(curves) > 1:
            axes.legend(loc="lower right")
    return figure


def precision_figure(average_precision: Sequence[float | None], of: str = "") -> Figure:
    """How the APs of the queries are spread, with their mean; ``of``: whose, where there are several."""
    values = 100 * np.array([value for value in average_precision if value is not None])
    with style():
        figure, axes = _chart()
        axes.hist(values, bins=np.linspace(0, 100, 21).tolist(), color=COLORS["blue"], rwidth=0.9)
        axes.margins(y=0.18)
        axes.axvline(values.mean(), color=COLORS["orange"], linewidth=1.6)
        axes.annotate(
            f"mAP {values.mean():.1f}",
            (values.mean(), 1),
            xycoords=("data", "axes fraction"),
            xytext=(5, -4) if values.mean() < 75 else (-5, -4),
            textcoords="offset points",
            ha="left" if values.mean() < 75 else "right",
            va="top",
            color=COLORS["orange"],
        )
        axes.grid(False, axis="x")
        axes.set(title=f"Queries by their AP{of and f', {of}'}", xlabel="AP, %", xlim=(0, 100))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    return figure


def _chart() -> tuple[Figure, Axes]:
    figure = new_figure(WIDTH, HEIGHT)
    left, right, top, bottom = 46, 8, 34, 44
    box = (left / WIDTH, bottom / HEIGHT, 1 - (left + right) / WIDTH, 1 - (top + bottom) / HEIGHT)
    return figure, figure.add_axes(box)
