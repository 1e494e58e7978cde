"""Search spaces: the candidate operations O (Sec. 3.1 and 3.3), and the edges of a cell that use them.

A cell has two inputs (the outputs of the last two cells, numbered 0 and 1) and four nodes (numbered 2 to 5;
the paper calls them blocks). While it is searched, each node reads every earlier input and node.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.operations.registry import OPERATIONS
from autoreid_fast.registry.plugins import load_entry_points
from autoreid_fast.registry.registry import unknown_name

CELL_INPUTS = 2
NODES = 4
EDGES_PER_NODE = 2
"""Edges that a node keeps in a genotype."""
EDGES = sum(CELL_INPUTS + node for node in range(NODES))
"""Edges of a cell during the search: 2 + 3 + 4 + 5 = 14."""

_STANDARD = ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3")
_SPACES: dict[str, tuple[str, ...]] = {
    "standard": _STANDARD,
    "reid": (*_STANDARD, "part_aware"),
}


def search_space(name: str) -> tuple[str, ...]:
    """Return the candidate operations O, in the order of alpha's columns.

    Args:
        name: ``"standard"``, the six candidates of Sec. 3.1; ``"reid"``, Sec. 3.3's O_reid, which adds the
            part-aware module; or a registered name.

    Raises:
        AutoReIDError: unknown name.

    Examples:
        >>> from autoreid_fast.nas import search_space
        >>> search_space("reid")[-1]
        'part_aware'
    """
    if name not in _SPACES:
        load_entry_points()
    if name not in _SPACES:
        raise unknown_name("search space", name, tuple(_SPACES))
    return _SPACES[name]


def register_search_space(name: str, operations: Sequence[str]) -> None:
    """Register a search space under a name that ``--space`` accepts.

    Args:
        name: Its name.
        operations: Registered operations, in the order of alpha's columns; ``"none"``, which adds zero, may
            come first.

    Raises:
        AutoReIDError: the name has other operations already, an operation is unknown or repeated, or
            ``"none"`` is not the first.

    Examples:
        >>> from autoreid_fast.nas import register_search_space, search_space
        >>> register_search_space("wide", (*search_space("reid"), "sep_conv_5x5"))
        >>> len(search_space("wide"))
        8
    """
    candidates = [operation for operation in operations if operation != "none"]
    for operation in candidates:
        OPERATIONS[operation]  # raises if it is unknown
    if len(set(operations)) < len(operations) or "none" in operations[1:] or not candidates:
        raise AutoReIDError(
            f"search space {name!r}: expected different operations, none only as the first, got "
            f"{', '.join(operations)}"
        )
    if _SPACES.get(name, tuple(operations)) != tuple(operations):
        raise AutoReIDError(f"search space {name!r} is registered twice: rename one of them")
    _SPACES[name] = tuple(operations)


def _checked_space(name: str) -> str:
    search_space(name)
    return name


Space = Annotated[str, AfterValidator(_checked_space)]
"""Type of a config's field that names a search space."""


def edge_index(node: int, source: int) -> int:
    """Return alpha's row for the edge from input ``source`` (0 .. node + 1) to ``node`` (0 .. 3)."""
    return sum(CELL_INPUTS + earlier for earlier in range(node)) + source
