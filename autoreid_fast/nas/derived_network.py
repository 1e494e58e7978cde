"""Derived network: the genotype's cells, trained from scratch on all of D_T (Algorithm 1, last lines)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autoreid_fast.nas.cell import CellShape, Preprocess, sum_of
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.nas.macro import CellNetwork
from autoreid_fast.nas.operations.fused import apply_all, build_fused
from autoreid_fast.nas.space import CELL_INPUTS, EDGES_PER_NODE, NODES


class DerivedCell(nn.Module):
    """Cell of the derived network: each node adds the two operations of its genotype, Eq. (1).

    Operations that read the same input or node are computed together (`operations.fused.apply_all`).
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
        """Indices of the operations that read each input and node."""

    def forward(self, older: Tensor, newer: Tensor) -> Tensor:
        """Map the outputs of the last two cells to the output of this one, (N, 4C, H', W')."""
        states = self.preprocess(older, newer)
        outputs: dict[int, Tensor] = {}
        for source, readers in enumerate(self.readers):
            if source >= CELL_INPUTS:
                first = EDGES_PER_NODE * (source - CELL_INPUTS)
                states.append(sum_of([outputs.pop(first + edge) for edge in range(EDGES_PER_NODE)]))
            operations = [self.operations[index] for index in readers]
            outputs.update(zip(readers, apply_all(operations, states[source]), strict=True))
        return torch.cat(states[CELL_INPUTS:], dim=1)


class DerivedNetwork(CellNetwork):
    """Images (N, 3, H, W) -> f (N, 32 * ``channels``), by the cells of one genotype.

    Args:
        genotype: The cells.
        channels: C, channels of the first convolution (paper: 64 in training).
        cells_per_block: l, cells in each of the four blocks (paper: 2 2 2 2).

    Raises:
        AutoReIDError: fewer than 2 channels, or ``cells_per_block`` that are not four positive integers.

    Examples:
        >>> import torch
        >>> from autoreid_fast.nas import GENOTYPES, DerivedNetwork
        >>> network = DerivedNetwork(GENOTYPES["darts_v2"], channels=4, cells_per_block=(1, 1, 1, 1))
        >>> network(torch.randn(2, 3, 64, 32)).shape
        torch.Size([2, 128])
    """

    def __init__(
        self, genotype: Genotype, channels: int = 64, cells_per_block: Sequence[int] = (2, 2, 2, 2)
    ) -> None:
        super().__init__(channels, cells_per_block, True, lambda shape: DerivedCell(shape, genotype))
        self.genotype = genotype

    def feature_map(self, images: Tensor) -> Tensor:
        older = newer = self.head(images)
        for cell in self.cells():
            older, newer = newer, cell(older, newer)
        return newer
