"""Macro structure: a ResNet with cells in place of residual layers (Sec. 3.2 and 4.2)."""

from collections.abc import Callable, Iterator, Sequence
from numbers import Integral

from torch import nn

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.backbone import Backbone
from autoreid_fast.nas.cell import CellShape
from autoreid_fast.nas.operations.layers import Layer
from autoreid_fast.nas.space import NODES

BLOCKS = 4
HEAD_STRIDE = 4
"""Total stride of the head; the first cell of each of blocks 2 to 4 halves the resolution again."""


def is_whole(value: object) -> bool:
    """Whether ``value`` is a whole number, of Python or NumPy."""
    return isinstance(value, Integral)


def check_cells_per_block(cells_per_block: Sequence[int]) -> tuple[int, ...]:
    """Return l = [l_1, l_2, l_3, l_4] as a tuple; AutoReIDError unless these are four positive integers."""
    try:
        cells = tuple(cells_per_block)
    except TypeError:  # a number
        cells = ()
    if len(cells) != BLOCKS or not all(is_whole(count) and count > 0 for count in cells):
        raise AutoReIDError(
            f"cells_per_block {cells_per_block!r}: expected {BLOCKS} positive integers, such as (2, 2, 2, 2)"
        )
    return cells


def block_shapes(channels: int, cells_per_block: Sequence[int]) -> Iterator[list[CellShape]]:
    """Yield the shapes of each block's cells; nodes of block b = 1 .. 4 have 2^(b - 1) ``channels``."""
    older = newer = channels
    after_reduction = False
    for block, cells in enumerate(check_cells_per_block(cells_per_block)):
        shapes = []
        for cell in range(cells):
            reduction = block > 0 and cell == 0
            shape = CellShape(older, newer, channels * 2**block, reduction, after_reduction)
            older, newer, after_reduction = newer, shape.out_channels, reduction
            shapes.append(shape)
        yield shapes


class Head(nn.Sequential):
    """3x3 convolution of stride 2, batch norm, ReLU, 3x3 max pool of stride 2."""

    norm = Layer[nn.BatchNorm2d](1)

    def __init__(self, channels: int, affine: bool) -> None:
        super().__init__(
            nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels, affine=affine),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )


class CellNetwork(Backbone):
    """Head and four blocks of cells: images (N, 3, H, W) -> f (N, 32 * ``channels``).

    Any image size works, odd ones too, except where part_aware needs more rows (`input_size`).

    Args:
        channels: C, channels of the head.
        cells_per_block: l, cells in each of the four blocks.
        affine: Whether the head's batch norm learns scale and shift.
        make_cell: Builds the cell of a given shape.

    Raises:
        AutoReIDError: fewer than 2 channels, or ``cells_per_block`` that are not four positive integers.
    """

    def __init__(
        self,
        channels: int,
        cells_per_block: Sequence[int],
        affine: bool,
        make_cell: Callable[[CellShape], nn.Module],
    ) -> None:
        super().__init__()
        if not is_whole(channels) or channels < 2:
            raise AutoReIDError(f"channels {channels!r}: expected a whole number of at least 2")
        self.channels = channels
        self.cells_per_block = check_cells_per_block(cells_per_block)
        self.head = Head(channels, affine)
        self.block1, self.block2, self.block3, self.block4 = (
            nn.ModuleList(make_cell(shape) for shape in shapes)
            for shapes in block_shapes(channels, cells_per_block)
        )
        self.feature_dim = NODES * channels * 2 ** (BLOCKS - 1)

    def cells(self) -> Iterator[nn.Module]:
        """Yield every cell, in the order of the forward pass."""
        for block in (self.block1, self.block2, self.block3, self.block4):
            yield from block
