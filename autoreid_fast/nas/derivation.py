"""Derivation of a genotype from alpha (Sec. 3.1), and the entropy of alpha."""

import math

import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.genotype import Cell, Edge, Genotype
from autoreid_fast.nas.space import (
    CELL_INPUTS,
    EDGES,
    EDGES_PER_NODE,
    NODES,
    edge_index,
    search_space,
)


def derive(alpha_normal: Tensor, alpha_reduce: Tensor, space: str) -> Genotype:
    """Derive the genotype that the search has found (Sec. 3.1).

    Each node keeps the two inputs of largest strength, the larger one first. The strength of an input is the
    largest weight of softmax(alpha) among its candidates other than ``none``, and its operation is the
    candidate with that weight. The earlier input wins between equal strengths, the earlier candidate between
    equal weights.

    Args:
        alpha_normal: (14, |O|) float, rows by `space.edge_index`.
        alpha_reduce: The same for the reduction cells.
        space: Name of the search space, which gives the columns their operations.

    Raises:
        AutoReIDError: a matrix of another shape, or one with NaN or infinite values.

    Examples:
        >>> import torch
        >>> from autoreid_fast.nas import derive
        >>> alpha = torch.zeros(14, 7)
        >>> alpha[:, 4] = 1.0  # sep_conv_3x3
        >>> derive(alpha, alpha, "reid").normal[0]
        (Edge(op='sep_conv_3x3', input=0), Edge(op='sep_conv_3x3', input=1))
    """
    return Genotype(
        normal=_derive_cell("alpha_normal", alpha_normal, space),
        reduce=_derive_cell("alpha_reduce", alpha_reduce, space),
    )


def _derive_cell(name: str, alpha: Tensor, space: str) -> Cell:
    operations = search_space(space)
    if alpha.shape != (EDGES, len(operations)):
        raise AutoReIDError(
            f"{name} has shape {tuple(alpha.shape)}; search space {space!r} needs {(EDGES, len(operations))}"
        )
    if not torch.isfinite(alpha).all():
        raise AutoReIDError(
            f"{name} has NaN or infinite values: the search diverged; use lower learning rates"
        )
    candidates = [column for column, operation in enumerate(operations) if operation != "none"]
    rows: list[list[float]] = alpha.detach().double().tolist()
    chosen = [max(candidates, key=row.__getitem__) for row in rows]  # the first of equal ones
    strength = [_log_odds(row, column) for row, column in zip(rows, chosen, strict=True)]

    nodes = []
    for node in range(NODES):
        sources = range(CELL_INPUTS + node)
        strongest = sorted(sources, key=lambda source: -strength[edge_index(node, source)])
        first, second = (
            Edge(operations[chosen[edge_index(node, source)]], source)
            for source in strongest[:EDGES_PER_NODE]
        )
        nodes.append((first, second))
    return tuple(nodes)


def _log_odds(row: list[float], column: int) -> float:
    """log(w / (1 - w)) of the softmax weight w of a column: it orders as w does.

    The weights themselves round to 0 or 1 where one candidate dominates. Equal entries in another order give
    the same bits.
    """
    others = sorted(value - row[column] for index, value in enumerate(row) if index != column)
    if not others:
        return math.inf
    largest = others[-1]
    return -largest - math.log(sum(math.exp(other - largest) for other in others))


def alpha_entropy(alpha: Tensor) -> float:
    """Return the entropy of softmax(alpha) in nats, averaged over the edges (rows) of alpha (14, |O|).

    It is log |O| while the search has no preference, and 0 once every edge has decided.

    Examples:
        >>> import torch
        >>> from autoreid_fast.nas import alpha_entropy
        >>> round(alpha_entropy(torch.zeros(14, 7)), 4)  # log 7
        1.9459
    """
    log_weight = torch.log_softmax(alpha.detach().double(), dim=1)
    return -(log_weight.exp() * log_weight).sum(dim=1).mean().item()
