"""Pictures of a genotype's cells, as Fig. 3 of the paper has them: inputs, operations on the edges, nodes."""

from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, PathPatch
from matplotlib.path import Path

from autoreid_fast.nas.genotype import Cell, Genotype
from autoreid_fast.report.graph import SIZES, Item, Layout, cell_layout
from autoreid_fast.report.theme import COLORS, new_figure, style

MARGIN = 2
TITLE = 34
BETWEEN = 22

_KINDS = {"pool": "pool", "conv": "convolution", "skip": "skip", "part": "part"}


def genotype_figure(genotype: Genotype) -> Figure:
    """Both cells of a genotype, one below the other; part_aware stands out."""
    layouts = [
        (title, cell_layout(cell))
        for title, cell in (("Normal cell", genotype.normal), ("Reduction cell", genotype.reduce))
    ]
    width = 2 * MARGIN + max(layout.width for _, layout in layouts)
    height = sum(TITLE + layout.height + BETWEEN for _, layout in layouts)
    with style():
        figure = new_figure(width, height)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(-MARGIN, width - MARGIN), ylim=(height, 0))
        axes.axis("off")
        top = 0.0
        for title, layout in layouts:
            axes.text(0, top + 14, title, weight="bold", size=12, va="center")
            _draw(axes, layout, top + TITLE)
            top += TITLE + layout.height + BETWEEN
    return figure


def summary(cell: Cell) -> str:
    """A cell in words, for those who do not see the picture."""
    nodes = (" + ".join(f"{edge.op}({_name(edge.input)})" for edge in node) for node in cell)
    return "; ".join(f"node {number} = {text}" for number, text in enumerate(nodes))


def _name(source: int) -> str:
    return ("c_k-2", "c_k-1")[source] if source < 2 else f"node {source - 2}"


def _draw(axes: Axes, layout: Layout, top: float) -> None:
    for wire in layout.wires:
        color = COLORS["line"] if wire[-1].kind == "input" else COLORS["soft"]
        part = any(item.label == "part_aware" for item in wire)
        axes.add_patch(
            PathPatch(
                _curve(wire, top),
                facecolor="none",
                edgecolor=COLORS["orange"] if part else color,
                linewidth=1.9 if part else 1.3,
                zorder=2 if part else 1,
            )
        )
    for item in layout.items:
        if item.kind != "wire":
            _draw_item(axes, item, top)


def _curve(wire: tuple[Item, ...], top: float) -> Path:
    """From box to box; level across each layer that the wire passes."""
    points = []
    for place, item in enumerate(wire):
        half = (SIZES["op"][0] if item.kind == "wire" and item.layer % 2 else SIZES[item.kind][0]) / 2
        if place:
            points.append((item.x - half, item.y + top))
        if place < len(wire) - 1:
            points.append((item.x + half, item.y + top))
    vertices, codes = [points[0]], [Path.MOVETO]
    for start, end in pairwise(points):
        bend = (end[0] - start[0]) / 2
        vertices += [(start[0] + bend, start[1]), (end[0] - bend, end[1]), end]
        codes += 3 * [Path.CURVE4]
    return Path(vertices, codes)


def _draw_item(axes: Axes, item: Item, top: float) -> None:
    width, height = SIZES[item.kind]
    x, y = item.x, item.y + top
    if item.kind == "node":
        axes.add_patch(Circle((x, y), width / 2, facecolor=COLORS["node"], edgecolor="none", zorder=3))
        axes.text(x, y, item.label, color=COLORS["paper"], weight="bold", ha="center", va="center", zorder=4)
        return
    part = item.label == "part_aware"
    name = next((name for word, name in _KINDS.items() if word in item.label), "paper")
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - height / 2),
            width,
            height,
            boxstyle=f"round,pad=0,rounding_size={height / 2 if item.kind == 'op' else 5}",
            facecolor=COLORS[name],
            edgecolor=COLORS["orange"] if part else COLORS["soft"] if item.kind == "input" else "none",
            linewidth=2.0 if part else 1.2,
            zorder=3,
        )
    )
    axes.text(
        x,
        y,
        item.label,
        size=10.5 if item.kind == "op" else 12.5,
        color=COLORS["part-ink"] if part else COLORS["ink"],
        weight="bold" if part else "normal",
        ha="center",
        va="center_baseline",
        zorder=4,
    )
