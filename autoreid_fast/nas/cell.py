"""Cells: the searched mixture of Eq. (2) and the derived choice of Eq. (1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from autoreid_fast.nas.fused_operations import apply_all, build_fused
from autoreid_fast.nas.genotype import CELL_INPUTS, EDGES_PER_NODE, NODES, Genotype, edge_index
from autoreid_fast.nas.operations import FactorizedReduce, ReLUConvBN, build_operation


@dataclass(frozen=True)
class CellShape:
    """Where a cell stands: the channels of its two inputs (the older first) and of each of its nodes.

    ``reduction``: a reduction cell, whose operations on the two inputs have stride 2. ``after_reduction``:
    the older input is twice as large as the newer one, so its preprocessing halves it.
    """

    older_channels: int
    newer_channels: int
    channels: int
    reduction: bool
    after_reduction: bool

    @property
    def out_channels(self) -> int:
        """The four nodes, concatenated."""
        return NODES * self.channels

    def stride(self, source: int) -> int:
        """The stride of an operation that reads input ``source``."""
        return 2 if self.reduction and source < CELL_INPUTS else 1


class Preprocess(nn.Module):
    """Bring the outputs of the last two cells to this cell's channels and to the newer one's resolution."""

    def __init__(self, shape: CellShape, affine: bool) -> None:
        super().__init__()
        older = FactorizedReduce if shape.after_reduction else ReLUConvBN
        self.older = older(shape.older_channels, shape.channels, affine)
        self.newer = ReLUConvBN(shape.newer_channels, shape.channels, affine)

    def forward(self, older: Tensor, newer: Tensor) -> list[Tensor]:
        return [self.older(older), self.newer(newer)]


class Sampled(NamedTuple):
    """The one candidate that an edge runs where a search samples, and its weight, a scalar tensor."""

    operation: str
    weight: Tensor


class MixedOp(nn.Module):
    """The inner sum of Eq. (2): every candidate of one edge, weighted by softmax(alpha); or a sampled one.

    ``none`` is zero and takes its share of the softmax alone.
    """

    def __init__(self, space: tuple[str, ...], channels: int, stride: int) -> None:
        super().__init__()
        self.space = space
        self.stride = stride
        self.operations = nn.ModuleDict(
            {name: build_operation(name, channels, stride, affine=False) for name in space if name != "none"}
        )

    def forward(self, x: Tensor, weights: Tensor | Sampled) -> Tensor:
        """x (N, C, H, W) and the edge's weights (|O|,), in the order of the search space, or its sample."""
        if isinstance(weights, Sampled):
            return weights.weight * self._only(weights.operation, x)
        share = dict(zip(self.space, weights.unbind(), strict=True))
        return sum_of([share[name] * operation(x) for name, operation in self.operations.items()])

    def _only(self, operation: str, x: Tensor) -> Tensor:
        if operation == "none":
            return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])
        return self.operations[operation](x)


class SearchCell(nn.Module):
    """A cell of the supernet: each node is the outer sum of Eq. (2) over every earlier input and node."""

    def __init__(self, shape: CellShape, space: tuple[str, ...]) -> None:
        super().__init__()
        self.reduction = shape.reduction
        self.preprocess = Preprocess(shape, affine=False)
        self.edges = nn.ModuleList(
            MixedOp(space, shape.channels, shape.stride(source))
            for node in range(NODES)
            for source in range(CELL_INPUTS + node)
        )

    def forward(self, older: Tensor, newer: Tensor, weights: Tensor | Sequence[Sampled]) -> Tensor:
        """The last two cells' outputs -> this cell's output (N, 4C, H', W').

        ``weights``: softmax(alpha) (14, |O|), or a sample for each of the 14 edges.
        """
        states = self.preprocess(older, newer)
        shares = list(weights)
        for node in range(NODES):
            edges = [edge_index(node, source) for source in range(len(states))]
            states.append(
                sum_of([self.edges[e](state, shares[e]) for e, state in zip(edges, states, strict=True)])
            )
        return torch.cat(states[CELL_INPUTS:], dim=1)


class DerivedCell(nn.Module):
    """A cell of the derived network: each node adds its genotype's two operations, Eq. (1).

    What reads one input or node is computed together (`fused_operations.apply_all`).
    """

    def __init__(self, shape: CellShape, genotype: Genotype) -> None:
        super().__init__()
        self.nodes = genotype.reduce if shape.reduction else genotype.normal
        self.preprocess = Preprocess(shape, affine=True)
        edges = [edge for node in self.nodes for edge in node]
        self.operations = nn.ModuleList(
            build_fused(edge.op, shape.channels, shape.stride(edge.input)) for edge in edges
        )
        self.readers = [
            [index for index, edge in enumerate(edges) if edge.input == source]
            for source in range(CELL_INPUTS + NODES)
        ]

    def forward(self, older: Tensor, newer: Tensor) -> Tensor:
        """The last two cells' outputs -> this cell's output (N, 4C, H', W')."""
        states = self.preprocess(older, newer)
        outputs: dict[int, Tensor] = {}
        for source, readers in enumerate(self.readers):
            if source >= CELL_INPUTS:
                first = EDGES_PER_NODE * (source - CELL_INPUTS)
                states.append(sum_of([outputs.pop(first + edge) for edge in range(EDGES_PER_NODE)]))
            operations = [self.operations[index] for index in readers]
            outputs.update(zip(readers, apply_all(operations, states[source]), strict=True))
        return torch.cat(states[CELL_INPUTS:], dim=1)


def sum_of(tensors: list[Tensor]) -> Tensor:
    """The sum of at least one tensor of equal shapes."""
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total
