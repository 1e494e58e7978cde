"""Graphs of cells: they show exactly the genotype's edges, and nothing overlaps."""

from itertools import pairwise

import pytest
import torch

from autoreid_fast.nas.derivation import derive
from autoreid_fast.nas.genotype import Cell
from autoreid_fast.nas.published import GENOTYPES
from autoreid_fast.report.plots.cell_layout import INPUTS, ITEM_GAP, OUTPUT, SIZES, cell_layout
from autoreid_fast.report.plots.cells import describe_cell, genotype_figure
from autoreid_fast.report.plots.theme import Drawing

torch.manual_seed(1)
RANDOM = [derive(*torch.randn(2, 14, 7), "reid") for _ in range(6)]
CELLS = [cell for genotype in (*GENOTYPES.values(), *RANDOM) for cell in (genotype.normal, genotype.reduce)]


def drawn_edges(cell: Cell) -> list[set[tuple[str, str]]]:
    """(operation, source) of the wires into each node of the graph."""
    wires = cell_layout(cell).wires
    into_op = {id(wire[-1]): wire[0].label for wire in wires if wire[-1].kind == "op"}
    nodes: list[set[tuple[str, str]]] = [set() for _ in cell]
    for wire in wires:
        if wire[0].kind == "op":
            nodes[int(wire[-1].label)].add((wire[0].label, into_op[id(wire[0])]))
    return nodes


@pytest.mark.parametrize("cell", CELLS, ids=range(len(CELLS)))
def test_the_graph_has_the_edges_of_the_cell(cell: Cell) -> None:
    names = (*INPUTS, "0", "1", "2", "3")
    assert drawn_edges(cell) == [{(edge.op, names[edge.input]) for edge in node} for node in cell]
    concatenated = {wire[0].label for wire in cell_layout(cell).wires if wire[-1].label == OUTPUT}
    assert concatenated == {"0", "1", "2", "3"}


@pytest.mark.parametrize("cell", CELLS, ids=range(len(CELLS)))
def test_items_do_not_overlap_and_wires_run_from_left_to_right(cell: Cell) -> None:
    layout = cell_layout(cell)
    for wire in layout.wires:
        assert all(right.layer == left.layer + 1 and right.x > left.x for left, right in pairwise(wire))
    layers = {item.layer for item in layout.items}
    for layer in layers:
        column = sorted((item for item in layout.items if item.layer == layer), key=lambda item: item.y)
        for above, below in pairwise(column):
            mean_height = (SIZES[above.kind][1] + SIZES[below.kind][1]) / 2
            assert below.y - above.y >= mean_height + ITEM_GAP - 1e-6
    assert all(0 <= item.y <= layout.height and 0 <= item.x <= layout.width for item in layout.items)


def test_a_planar_cell_is_drawn_without_crossings() -> None:
    chain = [[("skip_connect", 0), ("skip_connect", 1)]] + [
        [("skip_connect", node), ("sep_conv_3x3", node + 1)] for node in (1, 2, 3)
    ]
    cell = type(GENOTYPES["darts_v1"])(normal=chain, reduce=chain).normal  # type: ignore[arg-type]
    links = [pair for wire in cell_layout(cell).wires for pair in pairwise(wire)]
    for a, b in ((a, b) for a in links for b in links if a[0].layer == b[0].layer):
        assert (a[0].y - b[0].y) * (a[1].y - b[1].y) >= -1e-6


def test_the_svg_uses_text_and_the_pages_colours_and_is_deterministic() -> None:
    genotype = GENOTYPES["autoreid_base_reid"]
    svg = Drawing(genotype_figure(genotype)).inline("cells", "two cells")
    assert svg.count(">part_aware<") == 2
    assert "var(--part)" in svg
    assert "#1d2126" not in svg
    assert svg == Drawing(genotype_figure(genotype)).inline("cells", "two cells")
    assert "part_aware(c_k-2)" in describe_cell(genotype.reduce)
