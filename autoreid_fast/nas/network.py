"""The derived network: the genotype's cells, trained from scratch on all of D_T (Algorithm 1, last lines)."""

from collections.abc import Sequence

from torch import Tensor

from autoreid_fast.nas.cell import DerivedCell
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.nas.macro import CellNetwork


class DerivedNetwork(CellNetwork):
    """Images (N, 3, H, W) -> f (N, 32 * ``channels``); the paper trains C = 64 and l = [2, 2, 2, 2].

    Raises AutoReIDError for ``cells_per_block`` that are not four positive integers.
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
