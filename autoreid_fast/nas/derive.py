"""From alpha to a genotype (Sec. 3.1), and how decided alpha is."""

import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.genotype import (
    CELL_INPUTS,
    EDGES,
    EDGES_PER_NODE,
    NODES,
    Cell,
    Edge,
    Genotype,
    edge_index,
    search_space,
)


def derive(alpha_normal: Tensor, alpha_reduce: Tensor, space: str) -> Genotype:
    """The genotype that alpha's two (14, |O|) matrices stand for.

    Each node keeps the two inputs of largest strength, the larger one first: the strength of an input is the
    largest share of softmax(alpha) among the candidates but none, and its operation is the candidate with
    that share. Equal strengths go to the earlier input, equal shares to the earlier candidate. Raises
    AutoReIDError for a matrix of another shape or with a value that is not finite.
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
        raise AutoReIDError(f"{name} holds values that are not finite: the search diverged")
    candidates = [column for column, operation in enumerate(operations) if operation != "none"]
    shares = torch.softmax(alpha.detach().double().cpu(), dim=1)[:, candidates]
    strength, choice = shares.max(dim=1)

    nodes = []
    for node in range(NODES):
        sources = range(CELL_INPUTS + node)
        strongest = sorted(sources, key=lambda source: -strength[edge_index(node, source)].item())
        first, second = (
            Edge(operations[candidates[choice[edge_index(node, source)]]], source)
            for source in strongest[:EDGES_PER_NODE]
        )
        nodes.append((first, second))
    return tuple(nodes)


def alpha_entropy(alpha: Tensor) -> float:
    """The entropy of softmax(alpha) in nats, averaged over the edges of alpha (14, |O|).

    log |O| while the search has no preference, 0 once every edge has chosen.
    """
    log_share = torch.log_softmax(alpha.detach().double(), dim=1)
    return -(log_share.exp() * log_share).sum(dim=1).mean().item()
