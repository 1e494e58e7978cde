"""Which image sizes a network can take: every one, but that `part_aware` needs a row for each part."""

from collections.abc import Sequence

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.cell import CellShape
from autoreid_fast.nas.genotype import CELL_INPUTS, NODES, Genotype, search_space
from autoreid_fast.nas.macro import HEAD_STRIDE, block_shapes
from autoreid_fast.nas.part_aware import PARTS


def check_input_size(
    height: int, width: int, architecture: Genotype | str, cells_per_block: Sequence[int]
) -> None:
    """Raise AutoReIDError where a (3, ``height``, ``width``) image would fail somewhere in the network.

    ``architecture``: the genotype, or the name of a search space. Whatever halves the resolution rounds up,
    so only `part_aware` limits the size: it must meet at least M = 4 rows. The message says how many it
    would meet, and the smallest height that works.
    """
    if height < 1 or width < 1:
        raise AutoReIDError(f"image size {height}x{width}: both sides must be at least 1")
    stride = _part_aware_stride(architecture, cells_per_block)
    if stride is None:
        return
    rows = -(-height // stride)
    if rows < PARTS:
        raise AutoReIDError(
            f"image size {height}x{width}: part_aware would meet {rows} row{'s' * (rows > 1)} at stride"
            f" {stride} and needs {PARTS}: use a height of at least {(PARTS - 1) * stride + 1}"
        )


def _part_aware_stride(architecture: Genotype | str, cells_per_block: Sequence[int]) -> int | None:
    """The total stride of the smallest input that part_aware reads; None where the network has none."""
    strides = [
        # The two inputs of a reduction cell still have the resolution of the block before.
        HEAD_STRIDE * 2**block // shape.stride(source)
        for block, shapes in enumerate(block_shapes(1, cells_per_block))
        for shape in shapes
        for source in _part_aware_inputs(architecture, shape)
    ]
    return max(strides, default=None)


def _part_aware_inputs(architecture: Genotype | str, shape: CellShape) -> list[int]:
    """The inputs and nodes of a cell that part_aware reads."""
    if isinstance(architecture, str):
        last_node_reads = CELL_INPUTS + NODES - 1
        return list(range(last_node_reads)) if "part_aware" in search_space(architecture) else []
    nodes = architecture.reduce if shape.reduction else architecture.normal
    return [edge.input for node in nodes for edge in node if edge.op == "part_aware"]
