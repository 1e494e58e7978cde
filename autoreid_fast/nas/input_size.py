"""Image sizes that a network accepts: all of them, except that `part_aware` needs one row per part."""

from collections.abc import Sequence

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.cell import CellShape
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.nas.macro import HEAD_STRIDE, block_shapes
from autoreid_fast.nas.space import CELL_INPUTS, NODES, search_space
from autoreid_fast.ops.part_attention.strips import PARTS


def check_input_size(
    height: int, width: int, architecture: Genotype | str, cells_per_block: Sequence[int]
) -> None:
    """Raise AutoReIDError if an image of ``height`` x ``width`` would fail somewhere in the network.

    Every layer that halves the resolution rounds up, so only `part_aware` limits the size: its input needs
    at least M = 4 rows.

    Args:
        height: In pixels.
        width: In pixels.
        architecture: A genotype, or the name of a search space.
        cells_per_block: l, cells in each of the four blocks.

    Raises:
        AutoReIDError: a size below 1, or too few rows; the message gives the smallest height that works.

    Examples:
        >>> from autoreid_fast.nas import GENOTYPES, check_input_size
        >>> check_input_size(384, 128, GENOTYPES["autoreid_retrieval"], (2, 2, 2, 2))
        >>> check_input_size(96, 32, "reid", (2, 2, 2, 2))
        Traceback (most recent call last):
        autoreid_fast.errors.AutoReIDError: image size 96x32: part_aware would get 3 rows at stride 32 and \
needs 4: use a height of at least 97
    """
    if height < 1 or width < 1:
        raise AutoReIDError(f"image size {height}x{width}: height and width must be at least 1")
    stride = _part_aware_stride(architecture, cells_per_block)
    if stride is None:
        return
    rows = -(-height // stride)
    if rows < PARTS:
        raise AutoReIDError(
            f"image size {height}x{width}: part_aware would get {rows} row{'s' * (rows > 1)} at stride"
            f" {stride} and needs {PARTS}: use a height of at least {(PARTS - 1) * stride + 1}"
        )


def _part_aware_stride(architecture: Genotype | str, cells_per_block: Sequence[int]) -> int | None:
    """Return the total stride of the smallest input of part_aware; None if the network does not use it."""
    strides = [
        # The inputs of a reduction cell still have the resolution of the previous block.
        HEAD_STRIDE * 2**block // shape.stride(source)
        for block, shapes in enumerate(block_shapes(1, cells_per_block))
        for shape in shapes
        for source in _part_aware_inputs(architecture, shape)
    ]
    return max(strides, default=None)


def _part_aware_inputs(architecture: Genotype | str, shape: CellShape) -> list[int]:
    """Return the inputs and nodes of a cell that part_aware reads."""
    if isinstance(architecture, str):
        sources = CELL_INPUTS + NODES - 1  # all but the last node
        return list(range(sources)) if "part_aware" in search_space(architecture) else []
    nodes = architecture.reduce if shape.reduction else architecture.normal
    return [edge.input for node in nodes for edge in node if edge.op == "part_aware"]
