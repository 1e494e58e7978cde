"""softmax(alpha) of a search over its epochs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.nas.space import CELL_INPUTS, EDGES, NODES, edge_index, search_space

CELLS = ("normal", "reduce")
TITLES = ("Normal cell", "Reduction cell")


class EdgeLabel(NamedTuple):
    """Label of an edge, "source → node", and whether it is the first edge into its node."""

    text: str
    first: bool


def _edge_labels() -> tuple[EdgeLabel, ...]:
    names = ("cₖ₋₂", "cₖ₋₁", *map(str, range(NODES)))
    return tuple(
        EdgeLabel(f"{names[source]} → {node}", source == 0)
        for node in range(NODES)
        for source in range(CELL_INPUTS + node)
    )


EDGE_LABELS = _edge_labels()
"""One label per edge, in the order of alpha's rows."""


class AlphaHistory(NamedTuple):
    """softmax(alpha) and the derived genotype of every epoch."""

    weights: np.ndarray  # (epochs, 2, 14, |O|) float64, softmax(alpha) of the normal and the reduction cell
    kept: np.ndarray  # (epochs, 2, 14, |O|) bool, the genotype's operations
    operations: tuple[str, ...]  # names of O

    @property
    def color_limit(self) -> float:
        """The weight with the deepest colour: the largest of all epochs, at least twice a uniform weight."""
        return max(float(self.weights.max()), 2 / len(self.operations))


def alpha_history(history: Sequence[dict[str, Any]], space: str) -> AlphaHistory | None:
    """Read alpha from a search's ``history.json``; None if no epoch has been recorded.

    Raises:
        AutoReIDError: the space is unknown, or an epoch lacks alpha or has that of another space.
    """
    if not history or "alpha_normal" not in history[-1]:
        return None
    operations = search_space(space)
    for record in history:
        shapes = [np.shape(record.get(f"alpha_{cell}", ())) for cell in CELLS]
        if set(shapes) != {(EDGES, len(operations))} or not _is_of(record.get("genotype"), operations):
            raise AutoReIDError(f"history.json, epoch {record['epoch']}: no alpha of the {space} space")
    alpha = np.array([[record[f"alpha_{cell}"] for cell in CELLS] for record in history], dtype=np.float64)
    exponentials = np.exp(alpha - alpha.max(axis=-1, keepdims=True))
    kept = np.zeros(alpha.shape, dtype=bool)
    for epoch, record in enumerate(history):
        genotype = Genotype(**record["genotype"])
        for index, cell in enumerate((genotype.normal, genotype.reduce)):
            for node, edges in enumerate(cell):
                for op, source in edges:
                    kept[epoch, index, edge_index(node, source), operations.index(op)] = True
    return AlphaHistory(exponentials / exponentials.sum(axis=-1, keepdims=True), kept, operations)


def _is_of(genotype: dict[str, Any] | None, operations: Sequence[str]) -> bool:
    """Whether ``genotype`` has operations of one search space only."""
    nodes = [] if genotype is None else [*genotype["normal"], *genotype["reduce"]]
    return bool(nodes) and all(op in operations for node in nodes for op, _ in node)
