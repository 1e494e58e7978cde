"""Cell of the supernet, computed edge by edge: the mixture of Eq. (2)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from autoreid_fast.nas.cell import CellShape, Preprocess, sum_of
from autoreid_fast.nas.operations.registry import build_operation
from autoreid_fast.nas.space import CELL_INPUTS, NODES, edge_index


class Sampled(NamedTuple):
    """The one candidate that an edge runs in a sampling search, and its weight, a scalar tensor."""

    operation: str
    weight: Tensor


class MixedOp(nn.Module):
    """Inner sum of Eq. (2): all candidates of one edge, weighted by softmax(alpha); or a sampled one.

    ``none`` adds zero; it only takes weight from the other candidates.
    """

    def __init__(self, space: tuple[str, ...], channels: int, stride: int) -> None:
        super().__init__()
        self.space = space
        self.stride = stride
        self.operations = nn.ModuleDict(
            {name: build_operation(name, channels, stride, affine=False) for name in space if name != "none"}
        )

    def forward(self, x: Tensor, weights: Tensor | Sampled) -> Tensor:
        """Mix the candidates' outputs on x (N, C, H, W).

        Args:
            x: (N, C, H, W).
            weights: The edge's weights (|O|,), in the order of the search space, or its sample.
        """
        if isinstance(weights, Sampled):
            return weights.weight * self._run(weights.operation, x)
        weight = dict(zip(self.space, weights.unbind(), strict=True))
        return sum_of([weight[name] * operation(x) for name, operation in self.operations.items()])

    def _run(self, operation: str, x: Tensor) -> Tensor:
        if operation == "none":
            return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])
        return self.operations[operation](x)


class SearchCell(nn.Module):
    """Cell of the supernet: each node is the outer sum of Eq. (2) over every earlier input and node."""

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
        """Map the outputs of the last two cells to the output of this one, (N, 4C, H', W').

        Args:
            older: Output of the cell before last.
            newer: Output of the last cell.
            weights: softmax(alpha) (14, |O|), or one sample per edge.
        """
        states = self.preprocess(older, newer)
        edge_weights = list(weights)
        for node in range(NODES):
            edges = [edge_index(node, source) for source in range(len(states))]
            states.append(
                sum_of(
                    [
                        self.edges[edge](state, edge_weights[edge])
                        for edge, state in zip(edges, states, strict=True)
                    ]
                )
            )
        return torch.cat(states[CELL_INPUTS:], dim=1)
