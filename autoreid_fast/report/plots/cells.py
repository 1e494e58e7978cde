"""Graphs of a genotype's two cells, in the style of the paper's Fig. 3."""

from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, PathPatch
from matplotlib.path import Path

from autoreid_fast.nas.genotype import Cell, Genotype
from autoreid_fast.report.plots.cell_layout import SIZES, Item, Layout, cell_layout
from autoreid_fast.report.plots.theme import COLORS, new_figure, style

MARGIN = 2
TITLE_HEIGHT = 34
CELL_GAP = 22

OPERATION_COLORS = {"pool": "pool", "conv": "convolution", "skip": "skip", "part": "part"}
"""Colours of operations, by a part of their names."""


def genotype_figure(genotype: Genotype) -> Figure:
    """Both cells of a genotype, one below the other; part_aware is highlighted."""
    layouts = {"Normal cell": cell_layout(genotype.normal), "Reduction cell": cell_layout(genotype.reduce)}
    width = 2 * MARGIN + max(layout.width for layout in layouts.values())
    height = sum(TITLE_HEIGHT + layout.height + CELL_GAP for layout in layouts.values())
    with style():
        figure = new_figure(width, height)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(-MARGIN, width - MARGIN), ylim=(height, 0))
        axes.axis("off")
        top = 0.0
        for title, layout in layouts.items():
            axes.text(0, top + 14, title, weight="bold", size=12, va="center")
            _draw_layout(axes, layout, top + TITLE_HEIGHT)
            top += TITLE_HEIGHT + layout.height + CELL_GAP
    return figure


def describe_cell(cell: Cell) -> str:
    """Text alternative of a cell's graph: "node 0 = sep_conv_3x3(c_k-1) + skip_connect(c_k-2); ..."."""
    nodes = (" + ".join(f"{edge.op}({_source_name(edge.input)})" for edge in node) for node in cell)
    return "; ".join(f"node {number} = {text}" for number, text in enumerate(nodes))


def _source_name(source: int) -> str:
    return ("c_k-2", "c_k-1")[source] if source < 2 else f"node {source - 2}"


def _draw_layout(axes: Axes, layout: Layout, top: float) -> None:
    for wire in layout.wires:
        color = COLORS["line"] if wire[-1].kind == "input" else COLORS["soft"]
        part_aware = any(item.label == "part_aware" for item in wire)
        axes.add_patch(
            PathPatch(
                _curve(wire, top),
                facecolor="none",
                edgecolor=COLORS["orange"] if part_aware else color,
                linewidth=1.9 if part_aware else 1.3,
                zorder=2 if part_aware else 1,
            )
        )
    for item in layout.items:
        if item.kind == "node":
            _draw_node(axes, item, top)
        elif item.kind != "wire":
            _draw_box(axes, item, top)


def _curve(wire: tuple[Item, ...], top: float) -> Path:
    """Curve from box to box, horizontal across each layer that the wire passes."""
    points = []
    for position, item in enumerate(wire):
        half_width = (SIZES["op"][0] if item.kind == "wire" and item.layer % 2 else SIZES[item.kind][0]) / 2
        if position > 0:
            points.append((item.x - half_width, item.y + top))
        if position < len(wire) - 1:
            points.append((item.x + half_width, item.y + top))
    vertices, codes = [points[0]], [Path.MOVETO]
    for start, end in pairwise(points):
        bend = (end[0] - start[0]) / 2
        vertices += [(start[0] + bend, start[1]), (end[0] - bend, end[1]), end]
        codes += 3 * [Path.CURVE4]
    return Path(vertices, codes)


def _draw_node(axes: Axes, item: Item, top: float) -> None:
    x, y = item.x, item.y + top
    radius = SIZES["node"][0] / 2
    axes.add_patch(Circle((x, y), radius, facecolor=COLORS["node"], edgecolor="none", zorder=3))
    axes.text(x, y, item.label, color=COLORS["paper"], weight="bold", ha="center", va="center", zorder=4)


def _draw_box(axes: Axes, item: Item, top: float) -> None:
    width, height = SIZES[item.kind]
    x, y = item.x, item.y + top
    part_aware = item.label == "part_aware"
    fill = next((color for part, color in OPERATION_COLORS.items() if part in item.label), "paper")
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle=f"round,pad=0,rounding_size={height / 2 if item.kind == 'op' else 5}",
            facecolor=COLORS[fill],
            edgecolor=COLORS["orange"] if part_aware else COLORS["soft"] if item.kind == "input" else "none",
            linewidth=2.0 if part_aware else 1.2,
            zorder=3,
        )
    )
    axes.text(
        x,
        y,
        item.label,
        size=10.5 if item.kind == "op" else 12.5,
        color=COLORS["part-ink"] if part_aware else COLORS["ink"],
        weight="bold" if part_aware else "normal",
        ha="center",
        va="center_baseline",
        zorder=4,
    )
