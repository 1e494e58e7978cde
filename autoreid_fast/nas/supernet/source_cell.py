"""Cell of the supernet arranged by source: work that the edges of a source share is done once.

It computes the same function as `edge_cell.SearchCell`, which goes edge by edge; `weight_map` relates their
parameters. A node is one `mixed_op_sum` over every candidate of every edge that enters it.
"""

import torch
from torch import Tensor, nn

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.cell import CellShape, Preprocess
from autoreid_fast.nas.operations.as_built import AsBuilt
from autoreid_fast.nas.space import CELL_INPUTS, NODES, edge_index
from autoreid_fast.nas.supernet.source_operations import SHARED, Candidate, SourceOperations
from autoreid_fast.ops import mixed_op_sum

SOURCES = CELL_INPUTS + NODES - 1
"""Inputs and nodes that edges leave: all except the last node."""


def nodes_of(source: int) -> range:
    """Return the nodes that read ``source``; its edges are numbered in this order."""
    return range(max(0, source - CELL_INPUTS + 1), NODES)


class SourceCell(nn.Module):
    """`edge_cell.SearchCell` arranged by source: same inputs, same output."""

    sync_bn = False

    def __init__(self, shape: CellShape, space: tuple[str, ...]) -> None:
        super().__init__()
        self.reduction = shape.reduction
        self.preprocess = Preprocess(shape, affine=False)
        self.sources = nn.ModuleList(
            SourceOperations(len(nodes_of(source)), shape.channels, shape.stride(source), space)
            for source in range(SOURCES)
        )
        self.candidates = tuple(name for name in space if name != "none")
        self.normalized = [
            [
                name in SHARED and (name != "skip_connect" or shape.stride(source) == 2)
                for source in range(CELL_INPUTS + node)
                for name in self.candidates
            ]
            for node in range(NODES)
        ]
        """Per node and row of its `mixed_op_sum`: whether the candidate's last batch norm is done there."""
        for node, flags in enumerate(self.normalized):
            self.register_buffer(f"running_mean_{node}", torch.zeros(len(flags), shape.channels))
            self.register_buffer(f"running_var_{node}", torch.ones(len(flags), shape.channels))
        norms = [name for name, layer in self.named_modules() if isinstance(layer, nn.BatchNorm2d)]
        self.built = AsBuilt(self, norms)

    def forward(self, older: Tensor, newer: Tensor, weights: Tensor) -> Tensor:
        """Map the outputs of the last two cells to the output of this one, (N, 4C, H', W').

        Args:
            older: Output of the cell before last.
            newer: Output of the last cell.
            weights: softmax(alpha), (14, |O|).
        """
        self._require_unchanged_norms()
        states = self.preprocess(older, newer)
        weights = weights[:, weights.shape[1] - len(self.candidates) :]  # `none` comes first and adds zero
        candidates: list[list[list[Candidate]]] = [self.sources[s](states[s]) for s in range(CELL_INPUTS)]
        for node in range(NODES):
            edges = [by_edge[node - nodes_of(source).start] for source, by_edge in enumerate(candidates)]
            first = edge_index(node, 0)
            z, statistics = zip(*(candidate for edge in edges for candidate in edge), strict=True)
            state = mixed_op_sum(
                z,
                weights[first : first + len(edges)].reshape(-1),
                self.normalized[node],
                self.get_buffer(f"running_mean_{node}"),
                self.get_buffer(f"running_var_{node}"),
                training=self.training,
                statistics=statistics,
                sync=self.sync_bn,
            )
            states.append(state)
            if node < NODES - 1:
                candidates.append(self.sources[CELL_INPUTS + node](state))
        return torch.cat(states[CELL_INPUTS:], dim=1)

    def _require_unchanged_norms(self) -> None:
        """Refuse to run with some batch norms frozen or changed: those inside ops would not follow."""
        changed = self.built.changed(self)
        if changed is not None:
            raise AutoReIDError(
                f"SourceSupernet: the batch norm `{changed}` of a cell was changed, or is not in the cell's "
                "training mode; most batch norms of the cell are inside ops and would not follow: use a "
                "Supernet with the weights of reference_state_dict()"
            )
