"""Genotypes: which operations a cell applies to which inputs (Sec. 3.1), in memory and as JSON.

A node adds two operations, each applied to an earlier input or node: Eq. (1).
"""

import json
import os
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import require_regular, write_json
from autoreid_fast.nas.operations.registry import OPERATIONS
from autoreid_fast.nas.space import CELL_INPUTS, EDGES_PER_NODE, NODES
from autoreid_fast.schema import parse_json


class Edge(NamedTuple):
    """An operation and the input it reads: 0 and 1 are the cell's inputs, 2 .. the cell's earlier nodes."""

    op: str
    input: int


Cell = tuple[tuple[Edge, Edge], ...]
"""Four nodes of two edges: the paper's 4-tuples (I_i1, I_i2, O_i1, O_i2)."""


@dataclass(frozen=True)
class Genotype:
    """Normal and reduction cell of a network; equal genotypes compare and hash equal.

    Args:
        normal: Four nodes of two edges (op, input), as tuples or lists.
        reduce: The same for the reduction cells.

    Raises:
        AutoReIDError: a wrong number of nodes or edges, an unknown operation, or an input that does not
            precede its node; the message names the cell and the node.

    Examples:
        >>> from autoreid_fast.nas import Genotype
        >>> cell = [[("sep_conv_3x3", 0), ("skip_connect", 1)]] * 4
        >>> genotype = Genotype(normal=cell, reduce=cell)
        >>> Genotype.from_json(genotype.to_json()) == genotype
        True
        >>> genotype.normal[0][1].op
        'skip_connect'
    """

    normal: Cell
    reduce: Cell

    def __post_init__(self) -> None:
        for name in ("normal", "reduce"):
            object.__setattr__(self, name, checked_cell(name, getattr(self, name)))

    def to_json(self) -> str:
        """Return the genotype as JSON: ``{"normal": [[[op, input], [op, input]], ...], "reduce": ...}``."""
        return json.dumps(self._as_dict())

    @classmethod
    def from_json(cls, text: str) -> "Genotype":
        """Read the format of `to_json`; an AutoReIDError says what is wrong with it."""
        value = parse_json(text, "genotype")
        if not isinstance(value, dict) or set(value) != {"normal", "reduce"}:
            raise AutoReIDError('genotype: expected a JSON object with the keys "normal" and "reduce" only')
        return cls(**value)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the genotype to ``path`` as JSON, atomically."""
        write_json(path, self._as_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Genotype":
        """Read a file that `save` wrote; an AutoReIDError names the file and what is wrong with it."""
        try:
            require_regular(Path(path))
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise AutoReIDError(f"cannot read genotype {path}: {error}") from None
        except AutoReIDError as error:
            raise AutoReIDError(f"{path}: {error}") from None

    def _as_dict(self) -> dict[str, Cell]:
        return {"normal": self.normal, "reduce": self.reduce}


def checked_cell(name: str, nodes: Any) -> Cell:
    """Return ``nodes`` as the nodes of cell ``name``; AutoReIDError for anything malformed."""
    if not isinstance(nodes, list | tuple) or len(nodes) != NODES:
        got = len(nodes) if isinstance(nodes, list | tuple) else type(nodes).__name__
        raise AutoReIDError(f"genotype, {name} cell: expected a list of {NODES} nodes, got {got}")
    return tuple(
        _checked_node(f"genotype, {name} cell, node {index}", index, node) for index, node in enumerate(nodes)
    )


def _checked_node(where: str, index: int, edges: Any) -> tuple[Edge, Edge]:
    if not isinstance(edges, list | tuple) or len(edges) != EDGES_PER_NODE:
        raise AutoReIDError(
            f"{where}: expected {EDGES_PER_NODE} edges [op, input], got {reprlib.repr(edges)}"
        )
    first, second = (_checked_edge(where, index, edge) for edge in edges)
    return first, second


def _checked_edge(where: str, index: int, edge: Any) -> Edge:
    if not isinstance(edge, list | tuple) or len(edge) != 2:
        raise AutoReIDError(f"{where}: expected an edge [op, input], got {reprlib.repr(edge)}")
    op, source = edge
    if not isinstance(op, str):
        raise AutoReIDError(f"{where}: expected an edge [op, input], got {reprlib.repr(edge)}")
    try:
        OPERATIONS[op]
    except AutoReIDError as error:
        raise AutoReIDError(f"{where}: {error}") from None
    last = CELL_INPUTS + index - 1
    if isinstance(source, np.integer):
        source = int(source)
    if type(source) is not int or not 0 <= source <= last:
        raise AutoReIDError(
            f"{where}: input {reprlib.repr(source)} of {op} is out of range: use an integer 0 .. {last}"
        )
    return Edge(op, source)
