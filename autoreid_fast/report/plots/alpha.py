"""Heat maps of softmax(alpha) at several epochs."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from autoreid_fast.report.alpha import EDGE_LABELS, TITLES, AlphaHistory
from autoreid_fast.report.plots.theme import COLORS, new_figure, style

MAX_EPOCHS = 5
COLUMN_WIDTH, HEIGHT = 180, 720
MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 70, 10, 34, 96

_COLOR_MAP = LinearSegmentedColormap.from_list("alpha", [COLORS["paper"], COLORS["blue"]])


def alpha_figure(alpha: AlphaHistory) -> Figure:
    """Grid of heat maps: a row per cell, a column per epoch, from the first epoch to the last."""
    epochs = np.unique(np.linspace(0, len(alpha.weights) - 1, MAX_EPOCHS).round().astype(int))
    width = MARGIN_LEFT + COLUMN_WIDTH * len(epochs)
    with style():
        figure = new_figure(width, HEIGHT)
        grid = figure.subplots(2, len(epochs), sharex=True, sharey=True, squeeze=False)
        figure.subplots_adjust(
            left=MARGIN_LEFT / width,
            right=1 - MARGIN_RIGHT / width,
            top=1 - MARGIN_TOP / HEIGHT,
            bottom=MARGIN_BOTTOM / HEIGHT,
            wspace=0.06,
            hspace=0.05,
        )
        for cell, title in enumerate(TITLES):
            grid[cell, 0].set_ylabel(title)
            for column, epoch in enumerate(epochs):
                _draw_heat_map(grid[cell, column], alpha, epoch, cell)
        for column, epoch in enumerate(epochs):
            grid[0, column].set_title(f"epoch {epoch + 1}")
    return figure


def _draw_heat_map(axes: Axes, alpha: AlphaHistory, epoch: int, cell: int) -> None:
    """Weights of one cell: a row per edge, a column per candidate; dots mark the genotype's operations."""
    weights = alpha.weights[epoch, cell]
    axes.imshow(weights, cmap=_COLOR_MAP, vmin=0, vmax=alpha.color_limit, aspect="auto")
    edges, operations = np.nonzero(alpha.kept[epoch, cell])
    axes.plot(operations, edges, "o", color=COLORS["orange"], markersize=4)
    axes.grid(False)
    axes.set_xticks(range(len(alpha.operations)), alpha.operations, rotation=90)
    axes.set_yticks(range(len(EDGE_LABELS)), [label.text for label in EDGE_LABELS])
    axes.tick_params(length=0)
