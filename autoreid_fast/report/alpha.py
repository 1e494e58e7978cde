"""alpha over the epochs: the share of every candidate on every edge of both cells, softmax(alpha)."""

import base64
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from autoreid_fast.nas.genotype import CELL_INPUTS, NODES, Genotype, edge_index, search_space
from autoreid_fast.report.page import render
from autoreid_fast.report.theme import COLORS, new_figure, style

CELLS = ("normal", "reduce")
TITLES = ("Normal cell", "Reduction cell")
MULTIPLES = 5
EDGES = tuple(
    (f"{('cₖ₋₂', 'cₖ₋₁')[source] if source < CELL_INPUTS else source - CELL_INPUTS} → {node}", source == 0)
    for node in range(NODES)
    for source in range(CELL_INPUTS + node)
)
"""Each edge's name, in the order of alpha's rows, and whether it is the first that enters its node."""


class AlphaHistory(NamedTuple):
    """``shares``: (epochs, 2, 14, |O|) softmax(alpha); ``kept``: the same as bool, what the genotype of that
    epoch has; ``operations``: the names of O."""

    shares: np.ndarray
    kept: np.ndarray
    operations: tuple[str, ...]

    @property
    def full(self) -> float:
        """The share that has the full colour: the largest of all epochs, but twice an even one at least."""
        return max(float(self.shares.max()), 2 / len(self.operations))


def alpha_history(history: Sequence[dict[str, Any]], space: str) -> AlphaHistory | None:
    """alpha out of a search's history; None where no epoch has been recorded."""
    if not history or "alpha_normal" not in history[-1]:
        return None
    operations = search_space(space)
    alpha = np.array([[record[f"alpha_{cell}"] for cell in CELLS] for record in history], dtype=np.float64)
    weights = np.exp(alpha - alpha.max(axis=-1, keepdims=True))
    kept = np.zeros(alpha.shape, dtype=bool)
    for epoch, record in enumerate(history):
        genotype = Genotype(**record["genotype"])
        for which, cell in enumerate((genotype.normal, genotype.reduce)):
            for node, edges in enumerate(cell):
                for op, source in edges:
                    kept[epoch, which, edge_index(node, source), operations.index(op)] = True
    return AlphaHistory(weights / weights.sum(axis=-1, keepdims=True), kept, operations)


def alpha_heat(alpha: AlphaHistory) -> Markup:
    """HTML: both cells' shares as of the last epoch, and a slider over all of them where scripts run."""
    percent = np.rint(100 * alpha.shares).astype(np.uint8)
    return render(
        "heat",
        titles=TITLES,
        edges=EDGES,
        operations=alpha.operations,
        percent=percent[-1].tolist(),
        kept=alpha.kept[-1].tolist(),
        epochs=len(percent),
        full=round(100 * alpha.full),
        shares_of_all=_base64(percent),
        kept_of_all=_base64(np.packbits(alpha.kept.reshape(len(percent), -1), axis=1)),
    )


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")


def alpha_figure(alpha: AlphaHistory) -> Figure:
    """Small multiples: some epochs from the first to the last, a row a cell."""
    epochs = np.unique(np.linspace(0, len(alpha.shares) - 1, MULTIPLES).round().astype(int))
    colors = LinearSegmentedColormap.from_list("shares", [COLORS["paper"], COLORS["blue"]])
    with style():
        width, height = 70 + 180 * len(epochs), 720
        figure = new_figure(width, height)
        grid = figure.subplots(2, len(epochs), sharex=True, sharey=True, squeeze=False)
        edges_of_all = {
            "left": 70 / width,
            "right": 1 - 10 / width,
            "top": 1 - 34 / height,
            "bottom": 96 / height,
        }
        figure.subplots_adjust(**edges_of_all, wspace=0.06, hspace=0.05)
        for row, title in enumerate(TITLES):
            for column, epoch in enumerate(epochs):
                axes = grid[row, column]
                axes.imshow(alpha.shares[epoch, row], cmap=colors, vmin=0, vmax=alpha.full, aspect="auto")
                edges, columns = np.nonzero(alpha.kept[epoch, row])
                axes.plot(columns, edges, "o", color=COLORS["orange"], markersize=4)
                axes.grid(False)
                axes.set_xticks(range(len(alpha.operations)), alpha.operations, rotation=90)
                axes.set_yticks(range(len(EDGES)), [name for name, _ in EDGES])
                axes.tick_params(length=0)
                if row == 0:
                    axes.set_title(f"epoch {epoch + 1}")
            grid[row, 0].set_ylabel(title)
    return figure
