"""Genotypes: which operations a cell applies to which inputs (Sec. 3.1), in memory and as JSON.

A cell has two inputs (the outputs of the last two cells, numbered 0 and 1) and four nodes (numbered 2 to 5;
the paper calls them blocks). A node adds two operations, each applied to an earlier input or node: Eq. (1).
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import write_json

CELL_INPUTS = 2
NODES = 4
EDGES_PER_NODE = 2
EDGES = sum(CELL_INPUTS + node for node in range(NODES))
"""Edges of a cell while it is searched: every node reads every earlier input and node, 2 + 3 + 4 + 5 = 14."""

Space = Literal["standard", "reid"]
_STANDARD = ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3")
_SPACES: dict[Space, tuple[str, ...]] = {
    "standard": _STANDARD,
    "reid": (*_STANDARD, "part_aware"),
}

OPERATIONS = tuple(
    dict.fromkeys([*(op for space in _SPACES.values() for op in space[1:]), "sep_conv_5x5", "dil_conv_5x5"])
)
"""What a genotype may name: the search's candidates but none, and the 5x5 convolutions of GDAS."""


def search_space(name: str) -> tuple[str, ...]:
    """The candidate operations O, in the order of alpha's columns.

    ``"standard"`` is Sec. 3.1's set of six, ``"reid"`` is Sec. 3.3's O_reid, with the part-aware module.
    Raises AutoReIDError for another name.
    """
    if name not in _SPACES:
        raise AutoReIDError(f"unknown search space {name!r}: one of {', '.join(_SPACES)}")
    return _SPACES[name]


def edge_index(node: int, source: int) -> int:
    """Alpha's row for the edge from input ``source`` (0 .. node + 1) to ``node`` (0 .. 3)."""
    return sum(CELL_INPUTS + earlier for earlier in range(node)) + source


class Edge(NamedTuple):
    """An operation and the input it reads: 0 and 1 are the cell's inputs, 2 .. the cell's earlier nodes."""

    op: str
    input: int


Cell = tuple[tuple[Edge, Edge], ...]
"""Four nodes of two edges: the paper's 4-tuples (I_i1, I_i2, O_i1, O_i2)."""


@dataclass(frozen=True)
class Genotype:
    """The normal and the reduction cell of a network; equal genotypes compare and hash equal.

    Plain sequences of (op, input) pairs are taken too. Raises AutoReIDError, naming the cell and the node,
    for a wrong number of nodes or edges, an operation outside `OPERATIONS`, or an input that is not earlier.
    """

    normal: Cell
    reduce: Cell

    def __post_init__(self) -> None:
        for name in ("normal", "reduce"):
            object.__setattr__(self, name, _checked_cell(name, getattr(self, name)))

    def to_json(self) -> str:
        """The genotype as JSON: ``{"normal": [[[op, input], [op, input]], ...], "reduce": ...}``."""
        return json.dumps(self._as_dict())

    @classmethod
    def from_json(cls, text: str) -> "Genotype":
        """Read `to_json`'s format; AutoReIDError says what is wrong with it."""
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise AutoReIDError(f"genotype: not JSON ({error})") from None
        if not isinstance(value, dict) or set(value) != {"normal", "reduce"}:
            raise AutoReIDError('genotype: expected a JSON object with just the keys "normal" and "reduce"')
        return cls(**value)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the genotype to ``path`` as JSON, atomically."""
        write_json(path, self._as_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Genotype":
        """Read a file that `save` wrote; AutoReIDError names the file and what is wrong with it."""
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise AutoReIDError(f"cannot read genotype {path}: {error}") from None
        except AutoReIDError as error:
            raise AutoReIDError(f"{path}: {error}") from None

    def _as_dict(self) -> dict[str, Cell]:
        return {"normal": self.normal, "reduce": self.reduce}


def _checked_cell(name: str, nodes: Any) -> Cell:
    if not isinstance(nodes, list | tuple) or len(nodes) != NODES:
        found = len(nodes) if isinstance(nodes, list | tuple) else type(nodes).__name__
        raise AutoReIDError(f"genotype, {name} cell: expected a list of {NODES} nodes, found {found}")
    return tuple(_checked_node(f"genotype, {name} cell, node {i}", i, node) for i, node in enumerate(nodes))


def _checked_node(where: str, index: int, edges: Any) -> tuple[Edge, Edge]:
    if not isinstance(edges, list | tuple) or len(edges) != EDGES_PER_NODE:
        raise AutoReIDError(f"{where}: expected {EDGES_PER_NODE} edges [op, input], found {edges!r}")
    first, second = (_checked_edge(where, index, edge) for edge in edges)
    return first, second


def _checked_edge(where: str, index: int, edge: Any) -> Edge:
    if not isinstance(edge, list | tuple) or len(edge) != 2:
        raise AutoReIDError(f"{where}: expected an edge [op, input], found {edge!r}")
    op, source = edge
    if op not in OPERATIONS:
        raise AutoReIDError(f"{where}: unknown operation {op!r}: one of {', '.join(OPERATIONS)}")
    last = CELL_INPUTS + index - 1
    if type(source) is not int or not 0 <= source <= last:
        raise AutoReIDError(f"{where}: input {source!r} of {op} is out of range: an integer 0 .. {last}")
    return Edge(op, source)


_SHORT = {
    "max3": "max_pool_3x3",
    "avg3": "avg_pool_3x3",
    "skip": "skip_connect",
    "sep3": "sep_conv_3x3",
    "sep5": "sep_conv_5x5",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
    "part": "part_aware",
}


def _cell(text: str) -> Cell:
    """Read the table below: nodes between bars, edges between commas, each an operation and its input."""
    nodes = ([edge.split() for edge in node.split(",")] for node in text.split("|"))
    return _checked_cell(text, [[(_SHORT[op], int(source)) for op, source in node] for node in nodes])


GENOTYPES: dict[str, Genotype] = {
    # DARTS [20], first and second order, and GDAS [9], as their authors released them.
    "darts_v1": Genotype(
        normal=_cell("sep3 1, sep3 0 | skip 0, sep3 1 | skip 0, sep3 1 | sep3 0, skip 2"),
        reduce=_cell("max3 0, max3 1 | skip 2, max3 0 | max3 0, skip 2 | skip 2, avg3 0"),
    ),
    "darts_v2": Genotype(
        normal=_cell("sep3 0, sep3 1 | sep3 0, sep3 1 | sep3 1, skip 0 | skip 0, dil3 2"),
        reduce=_cell("max3 0, max3 1 | skip 2, max3 1 | max3 0, skip 2 | skip 2, max3 1"),
    ),
    "gdas_v1": Genotype(
        normal=_cell("skip 0, skip 1 | skip 0, sep5 2 | sep3 3, skip 0 | sep5 4, sep3 3"),
        reduce=_cell("sep5 0, sep3 1 | sep5 2, sep5 1 | dil5 2, sep3 1 | sep5 0, sep5 1"),
    ),
    # Table 1, run 1 of "Baseline", "Baseline + ReID Search Space" and "Retrieval + ReID Search Space".
    "autoreid_baseline": Genotype(
        normal=_cell("dil3 1, dil3 0 | dil3 1, sep3 2 | dil3 2, sep3 1 | sep3 2, sep3 3"),
        reduce=_cell("sep3 1, skip 0 | max3 2, dil3 1 | max3 0, dil3 2 | skip 0, dil3 4"),
    ),
    "autoreid_base_reid": Genotype(
        normal=_cell("dil3 0, skip 1 | max3 2, sep3 0 | max3 3, sep3 1 | sep3 2, dil3 3"),
        reduce=_cell("skip 1, part 0 | avg3 2, part 0 | sep3 1, avg3 2 | skip 4, max3 3"),
    ),
    "autoreid_retrieval": Genotype(
        normal=_cell("sep3 0, skip 1 | dil3 2, dil3 0 | dil3 3, sep3 2 | dil3 4, dil3 3"),
        reduce=_cell("max3 0, part 1 | sep3 0, dil3 2 | dil3 2, max3 0 | dil3 4, dil3 3"),
    ),
}
"""The published networks, by the names the command line takes."""
