"""Search spaces: the candidate operations O (Sec. 3.1 and 3.3), and the edges of a cell that use them.

A cell has two inputs (the outputs of the last two cells, numbered 0 and 1) and four nodes (numbered 2 to 5;
the paper calls them blocks). While it is searched, each node reads every earlier input and node.
"""

from typing import Literal

from autoreid_fast.errors import AutoReIDError

CELL_INPUTS = 2
NODES = 4
EDGES_PER_NODE = 2
"""Edges that a node keeps in a genotype."""
EDGES = sum(CELL_INPUTS + node for node in range(NODES))
"""Edges of a cell during the search: 2 + 3 + 4 + 5 = 14."""

Space = Literal["standard", "reid"]
_STANDARD = ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3")
_SPACES: dict[Space, tuple[str, ...]] = {
    "standard": _STANDARD,
    "reid": (*_STANDARD, "part_aware"),
}

OPERATIONS = tuple(
    dict.fromkeys([*(op for space in _SPACES.values() for op in space[1:]), "sep_conv_5x5", "dil_conv_5x5"])
)
"""Operations of genotypes: the candidates of the search except ``none``, and GDAS's 5x5 convolutions."""


def search_space(name: str) -> tuple[str, ...]:
    """Return the candidate operations O, in the order of alpha's columns.

    Args:
        name: ``"standard"``, the six candidates of Sec. 3.1, or ``"reid"``, Sec. 3.3's O_reid, which adds the
            part-aware module.

    Raises:
        AutoReIDError: unknown name.

    Examples:
        >>> from autoreid_fast.nas import search_space
        >>> search_space("reid")[-1]
        'part_aware'
    """
    if name not in _SPACES:
        raise AutoReIDError(f"unknown search space {name!r}: use one of {', '.join(_SPACES)}")
    return _SPACES[name]


def edge_index(node: int, source: int) -> int:
    """Return alpha's row for the edge from input ``source`` (0 .. node + 1) to ``node`` (0 .. 3)."""
    return sum(CELL_INPUTS + earlier for earlier in range(node)) + source
