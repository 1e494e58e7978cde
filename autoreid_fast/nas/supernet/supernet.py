"""Supernet: all candidate networks at once, mixed by alpha (Sec. 3.1, Eq. 2), computed edge by edge."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autoreid_fast.nas.macro import CellNetwork
from autoreid_fast.nas.space import EDGES, search_space
from autoreid_fast.nas.supernet.edge_cell import Sampled, SearchCell

ALPHA_INIT_STD = 1e-3


class Supernet(CellNetwork):
    """Images (N, 3, H, W) -> f (N, 32 * ``channels``), by the mixture of all candidates.

    All normal cells share ``alpha_normal`` and all reduction cells ``alpha_reduce``, both (14, |O|): one row
    per edge (`space.edge_index`), one column per candidate (`space.search_space`). This is the
    reference for the faster arrangement `SourceSupernet`.

    Args:
        channels: C, channels of the first convolution (paper: 32 in the search).
        cells_per_block: l, cells in each of the four blocks (paper: 2 2 2 2).
        space: Name of the search space.

    Raises:
        AutoReIDError: an unknown ``space``, or ``cells_per_block`` that are not four positive integers.

    Examples:
        >>> import torch
        >>> from autoreid_fast.nas import Supernet
        >>> supernet = Supernet(channels=3, cells_per_block=(1, 1, 1, 1), space="standard")
        >>> supernet(torch.randn(2, 3, 64, 32)).shape
        torch.Size([2, 96])
        >>> supernet.alpha_normal.shape
        torch.Size([14, 6])
    """

    cell_type: type[nn.Module] = SearchCell

    def __init__(
        self, channels: int = 32, cells_per_block: Sequence[int] = (2, 2, 2, 2), space: str = "reid"
    ) -> None:
        operations = search_space(space)
        super().__init__(channels, cells_per_block, False, lambda shape: self.cell_type(shape, operations))
        self.space = space
        self.alpha_normal = nn.Parameter(ALPHA_INIT_STD * torch.randn(EDGES, len(operations)))
        self.alpha_reduce = nn.Parameter(ALPHA_INIT_STD * torch.randn(EDGES, len(operations)))

    def architecture_parameters(self) -> list[nn.Parameter]:
        """Return alpha, which is updated on D_val."""
        return [self.alpha_normal, self.alpha_reduce]

    def operation_parameters(self) -> list[nn.Parameter]:
        """Return omega, all other parameters, which are updated on D_train."""
        alpha = {id(parameter) for parameter in self.architecture_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in alpha]

    def weights(self, alpha: Tensor) -> Tensor | list[Sampled]:
        """Return each edge's candidate weights for alpha (14, |O|)."""
        return torch.softmax(alpha, dim=1)

    def feature_map(self, images: Tensor) -> Tensor:
        normal, reduce = self.weights(self.alpha_normal), self.weights(self.alpha_reduce)
        older = newer = self.head(images)
        for cell in self.cells():
            older, newer = newer, cell(older, newer, reduce if cell.reduction else normal)
        return newer
