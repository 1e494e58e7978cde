"""The supernet: every candidate network at once, mixed by alpha (Sec. 3.1, Eq. 2), computed edge by edge."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from autoreid_fast.nas.cell import Sampled, SearchCell
from autoreid_fast.nas.genotype import EDGES, search_space
from autoreid_fast.nas.macro import CellNetwork

ALPHA_INIT_STD = 1e-3


class Supernet(CellNetwork):
    """Images (N, 3, H, W) -> f (N, 32 * ``channels``); the paper searches C = 32 and l = [2, 2, 2, 2].

    All normal cells share ``alpha_normal`` and all reduction cells ``alpha_reduce``, both (14, |O|): a row
    an edge (`genotype.edge_index`), a column a candidate (`genotype.search_space`). This is the reference
    that any faster arrangement is held to. Raises AutoReIDError for an unknown ``space`` and for
    ``cells_per_block`` that are not four positive integers.
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
        """alpha: updated on D_val."""
        return [self.alpha_normal, self.alpha_reduce]

    def operation_parameters(self) -> list[nn.Parameter]:
        """omega: everything but alpha, updated on D_train."""
        alpha = {id(parameter) for parameter in self.architecture_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in alpha]

    def weights(self, alpha: Tensor) -> Tensor | list[Sampled]:
        """What each edge of alpha (14, |O|) makes of its candidates."""
        return torch.softmax(alpha, dim=1)

    def feature_map(self, images: Tensor) -> Tensor:
        normal, reduce = self.weights(self.alpha_normal), self.weights(self.alpha_reduce)
        older = newer = self.head(images)
        for cell in self.cells():
            older, newer = newer, cell(older, newer, reduce if cell.reduction else normal)
        return newer
