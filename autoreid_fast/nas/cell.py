"""Parts that searched and derived cells have in common: shape, preprocessing, sums."""

from dataclasses import dataclass

from torch import Tensor, nn

from autoreid_fast.nas.operations.layers import FactorizedReduce, ReLUConvBN
from autoreid_fast.nas.space import CELL_INPUTS, NODES


@dataclass(frozen=True)
class CellShape:
    """Channels and strides of a cell at its place in the network.

    Args:
        older_channels: Channels of the older input, the output of the cell before last.
        newer_channels: Channels of the newer input, the output of the last cell.
        channels: Channels of each node.
        reduction: Whether this is a reduction cell, whose operations on the two inputs have stride 2.
        after_reduction: Whether the last cell was one. The older input is then twice as large as the newer
            one, and its preprocessing halves it.
    """

    older_channels: int
    newer_channels: int
    channels: int
    reduction: bool
    after_reduction: bool

    @property
    def out_channels(self) -> int:
        """Channels of the output, the concatenation of the four nodes."""
        return NODES * self.channels

    def stride(self, source: int) -> int:
        """Return the stride of an operation that reads input ``source``."""
        return 2 if self.reduction and source < CELL_INPUTS else 1


class Preprocess(nn.Module):
    """Bring both inputs of a cell to its number of channels and to the resolution of the newer one."""

    def __init__(self, shape: CellShape, affine: bool) -> None:
        super().__init__()
        older = FactorizedReduce if shape.after_reduction else ReLUConvBN
        self.older = older(shape.older_channels, shape.channels, affine)
        self.newer = ReLUConvBN(shape.newer_channels, shape.channels, affine)

    def forward(self, older: Tensor, newer: Tensor) -> list[Tensor]:
        return [self.older(older), self.newer(newer)]


def sum_of(tensors: list[Tensor]) -> Tensor:
    """Add up at least one tensor, all of one shape."""
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total
