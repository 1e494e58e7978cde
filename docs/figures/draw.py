"""The figures of docs/develop/kernels.md: `python docs/figures/draw.py` writes them beside this file."""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from autoreid_fast.ops.k_reciprocal.spec import NEIGHBORS, ROWS

INK, FAINT = "#1f2933", "#9aa5b1"
BLUE, ORANGE, GREEN, GRAY = "#cfe2f3", "#fbdcb8", "#d5ead0", "#eef1f4"
FIGURES: dict[str, tuple[Callable[[Axes], None], float, float]] = {}


def figure(width: float, height: float) -> Callable[[Callable[[Axes], None]], Callable[[Axes], None]]:
    """Register a drawing on a canvas of ``width`` x ``height`` units, 0.6 to the inch."""

    def register(draw: Callable[[Axes], None]) -> Callable[[Axes], None]:
        FIGURES[draw.__name__] = draw, width, height
        return draw

    return register


def box(
    ax: Axes, x: float, y: float, text: str, color: str = GRAY, width: float = 2.2, height: float = 0.6
) -> None:
    """A labelled box with its middle at (x, y)."""
    corner = (x - width / 2 + 0.06, y - height / 2 + 0.06)
    shape = FancyBboxPatch(
        corner, width - 0.12, height - 0.12, "round,pad=0.06,rounding_size=0.1", fc=color, ec=INK, lw=0.8
    )
    ax.add_patch(shape)
    ax.text(x, y, text, ha="center", va="center", fontsize=8)


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str = INK) -> None:
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=8, lw=0.8, color=color))


def title(ax: Axes, x: float, y: float, text: str) -> None:
    ax.text(x, y, text, ha="center", va="center", fontsize=9.5, fontweight="bold")


def note(ax: Axes, x: float, y: float, text: str, side: str = "center") -> None:
    ax.text(x, y, text, ha=side, va="center", fontsize=7.5, color="#52606d", linespacing=1.35)


@figure(15, 7.6)
def arrangement(ax: Axes) -> None:
    """The operations that the edges of one source run: edge by edge, and by source."""
    title(ax, 3.6, 7.2, "edge by edge")
    box(ax, 0.6, 3.5, "x", BLUE, 0.8)
    names = ("max pool, BN", "avg pool, BN", "skip", "sep conv, BN", "dil conv, BN", "part_aware, BN")
    for edge in range(4):
        y = 5.9 - 1.6 * edge
        arrow(ax, (1.0, 3.5), (1.6, y))
        ax.add_patch(Rectangle((1.65, y - 0.68), 3.7, 1.36, fc="white", ec=FAINT, lw=0.8))
        for k, name in enumerate(names):
            color = BLUE if k < 2 else ORANGE if k in (3, 4) else GREEN if k == 5 else GRAY
            box(ax, 2.6 + 1.8 * (k % 2), y + 0.43 - 0.43 * (k // 2), name, color, 1.75, 0.4)
        arrow(ax, (5.4, y), (5.95, y))
        box(ax, 6.4, y, f"node {edge}", GRAY, 0.9, 0.5)
    note(ax, 3.6, 0.05, "24 candidates, each with passes over x of its own")

    title(ax, 11.6, 7.2, "by source")
    box(ax, 8.1, 3.5, "x", BLUE, 0.8)
    shared = (
        (6.1, "stencil3x3: both pools", BLUE, "one read of x, whatever the edges"),
        (4.4, "separable_conv: 8 filters", ORANGE, "dil, and sep's first half, of each edge"),
        (2.7, "1x1 convolutions", GREEN, "W1 of part_aware, each edge"),
        (1.1, "part_attention", GREEN, "one bias vector per strip and edge"),
    )
    for y, text, color, about in shared:
        arrow(ax, (8.5, 3.5), (9.0, y))
        box(ax, 10.6, y, text, color, 3.1)
        note(ax, 10.6, y - 0.5, about)
        arrow(ax, (12.2, y), (12.95, 3.6 + 0.15 * (y - 3.5)))
    box(ax, 13.9, 3.6, "mixed_op_sum\nof each node", GRAY, 1.8, 1.0)
    note(ax, 13.9, 2.75, "all BN and weights")
    note(ax, 11.6, 0.05, "skip is x itself; at stride 2 it is two more 1x1 convolutions")


@figure(15, 5.2)
def stencil(ax: Axes) -> None:
    """A tile with its halo, and the windows of both dilations."""
    size, left, bottom = 0.42, 0.6, 0.5
    for row in range(10):
        for column in range(10):
            inside = 2 <= row < 8 and 2 <= column < 8
            at = (left + size * column, bottom + size * row)
            ax.add_patch(Rectangle(at, size, size, fc=BLUE if inside else GRAY, ec="white", lw=1))
    for at, dilation, color in (((3, 7), 1, "#d9822b"), ((6, 3), 2, "#3d8b37")):
        for u in (-1, 0, 1):
            for v in (-1, 0, 1):
                x = left + size * (at[0] + dilation * v + 0.5)
                y = bottom + size * (at[1] + dilation * u + 0.5)
                ax.plot(x, y, "o" if dilation == 1 else "s", color=color, ms=5)
    title(ax, 2.7, 5.0, "a tile of x and its halo")
    note(ax, 2.7, 0.2, "a halo of 2 pixels serves both dilations")
    for y, marker, color, text in (
        (3.6, "o", "#d9822b", "pools, filters of dilation 1"),
        (3.1, "s", "#3d8b37", "filters of dilation 2"),
    ):
        ax.plot(5.3, y, marker, color=color, ms=5)
        note(ax, 5.5, y, text, "left")
    note(ax, 5.2, 2.4, "channels lie in depth, adjacent\nin memory: vectors run over them", "left")
    title(ax, 11.6, 5.0, "one read, every output")
    box(ax, 9.2, 2.6, "tile\non chip", BLUE, 1.2, 0.9)
    rows = (
        (4.2, "max pool", BLUE),
        (3.4, "average pool", BLUE),
        (2.3, "filter 1", ORANGE),
        (0.8, "filter F", ORANGE),
    )
    for y, text, color in rows:
        arrow(ax, (9.85, 2.6), (11.1, y))
        box(ax, 12.4, y, text, color, 2.4)
    ax.text(12.4, 1.55, "⋮", ha="center", va="center", fontsize=13)


@figure(15, 4.4)
def separable(ax: Axes) -> None:
    """Passes over memory of a separable convolution: layer by layer, and fused."""

    def row(y: float, steps: list[tuple[str, str]], label: str) -> None:
        ax.text(0.1, y + 0.75, label, fontsize=9.5, fontweight="bold", va="center")
        x = 0.9
        for k, (text, color) in enumerate(steps):
            width = 1.0 if color == BLUE else 1.75
            box(ax, x, y, text, color, width, 0.7)
            if k + 1 < len(steps):
                after = 1.0 if steps[k + 1][1] == BLUE else 1.75
                arrow(ax, (x + width / 2, y), (x + width / 2 + 0.35, y))
                x += width / 2 + 0.35 + after / 2

    layers = [("x", BLUE), ("ReLU", ORANGE), ("r", BLUE), ("depthwise", ORANGE), ("h", BLUE)]
    row(3.2, [*layers, ("1x1", ORANGE), ("z", BLUE), ("mean, var", ORANGE)], "layer by layer")
    row(
        1.3,
        [("x", BLUE), ("one kernel", ORANGE), ("z", BLUE)],
        "separable_conv, the F filters of a source at once",
    )
    note(ax, 5.2, 1.3, "ReLU and h stay on chip; mean and variance are of z as it is written", "left")
    note(ax, 0.4, 0.3, "blue: a tensor in memory; orange: work", "left")


@figure(15, 5.6)
def part(ax: Axes) -> None:
    """The part-aware module as Fig. 2 draws it, and as it is computed."""

    def strips(x: float, width: float, colors: list[str], text: str) -> None:
        for m, color in enumerate(colors):
            ax.add_patch(Rectangle((x, 1.2 + 0.8 * m), width, 0.8, fc=color, ec=INK, lw=0.8))
        note(ax, x + width / 2, 0.85, text)

    shades = ["#fde8d0", "#f9cfa0", "#f2b46d", "#e89a3f"]
    title(ax, 3.4, 5.2, "as it is defined")
    strips(0.3, 1.2, [BLUE] * 4, "x: C")
    ax.text(1.8, 2.8, "cat", ha="center", va="center", fontsize=9)
    strips(2.1, 0.6, shades, "part vectors,\nrepeated: C/3")
    arrow(ax, (2.9, 2.8), (3.8, 2.8))
    box(ax, 4.7, 2.8, "1x1: C + C/3 to C", GREEN, 1.9)
    arrow(ax, (5.7, 2.8), (6.3, 2.8))
    strips(6.4, 1.2, [GREEN] * 4, "z: C")
    title(ax, 11.6, 5.2, "as it is computed")
    strips(8.4, 1.2, [BLUE] * 4, "x: C")
    arrow(ax, (9.7, 3.6), (10.1, 3.6))
    box(ax, 10.9, 3.6, "1x1: W1 x", GREEN, 1.5)
    arrow(ax, (9.7, 1.9), (10.1, 1.9))
    box(ax, 10.9, 1.9, "part_attention", ORANGE, 1.6)
    for m, color in enumerate(shades):
        ax.add_patch(Rectangle((12.15, 1.4 + 0.25 * m), 0.5, 0.25, fc=color, ec=INK, lw=0.8))
    note(ax, 12.4, 1.05, "W2 p: a vector\na strip")
    arrow(ax, (11.7, 3.6), (13.0, 3.0))
    arrow(ax, (12.7, 1.9), (13.0, 2.6))
    ax.text(13.15, 2.8, "+", ha="center", va="center", fontsize=13)
    strips(13.4, 1.2, [GREEN] * 4, "z: C")
    note(ax, 7.5, 0.15, "W = [W1 W2]:   W cat(x, repeat(p)) = W1 x + (W2 p)[strip]")


@figure(15, 4.0)
def rank(ax: Axes) -> None:
    """The ranks of a query's matches, from how many other entries lie below each."""
    ax.annotate("", (14.3, 1.6), (0.6, 1.6), arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1})
    note(ax, 13.6, 1.2, "distance to the query")
    matches, others = (2.6, 6.4, 11.0), (1.4, 2.1, 3.7, 4.2, 5.1, 7.2, 8.0, 8.3, 9.6, 12.2, 13.1)
    for x in others:
        ax.plot(x, 1.6, "o", color=FAINT, ms=6)
    for k, x in enumerate(matches):
        below = sum(other < x for other in others)
        ax.plot([x, x], [1.6, 2.5], color="#d9822b", lw=1)
        ax.plot(x, 1.6, "D", color="#d9822b", ms=7)
        ax.text(
            x,
            3.0,
            f"{below} others and {k} matches\nbelow: rank {below + k + 1}",
            ha="center",
            va="center",
            fontsize=8,
        )
    edges = (0.6, *matches)
    for k in range(3):
        middle = (edges[k] + edges[k + 1]) / 2
        inside = sum(edges[k] < other < edges[k + 1] for other in others)
        note(ax, middle, 1.2, f"+{inside}")
    note(
        ax,
        7.4,
        0.4,
        "an entry adds 1 to the gap that it falls into; running sums of the gaps give the ranks",
    )


@figure(15, 6.6)
def reciprocal(ax: Axes) -> None:
    """All distances of 60 images of 6 people, and the entries of V, computed by the reference."""
    torch.manual_seed(0)
    features = torch.randn(6, 16).repeat_interleave(10, 0) + 0.9 * torch.randn(60, 16)
    distances = torch.cdist(features, features).square()
    neighbors, farthest = NEIGHBORS.reference(features, 9)
    offsets, columns, _ = ROWS.reference(features, neighbors, farthest, 8)
    for x, name in ((0.6, "distances: N x N, never stored"), (8.4, f"V: {len(columns)} of 3,600 entries")):
        title(ax, x + 2.9, 6.3, name)
        ax.add_patch(Rectangle((x, 0.2), 5.8, 5.8, fc="white", ec=FAINT, lw=0.8))
    ax.imshow(distances, extent=(0.6, 6.4, 0.2, 6.0), cmap="Blues_r", interpolation="nearest", zorder=2)
    for row in range(60):
        for column in columns[offsets[row] : offsets[row + 1]].tolist():
            at = (8.4 + 5.8 * column / 60, 6.0 - 5.8 * (row + 1) / 60)
            ax.add_patch(Rectangle(at, 5.8 / 60, 5.8 / 60, fc="#d9822b", ec="none"))


def main() -> None:
    plt.rcParams |= {"svg.hashsalt": "autoreid_fast", "font.family": "DejaVu Sans", "text.color": INK}
    for name, (draw, width, height) in FIGURES.items():
        canvas = mpl.figure.Figure(figsize=(0.6 * width, 0.6 * height), facecolor="white")
        ax = canvas.add_axes((0, 0, 1, 1))
        draw(ax)
        ax.set(xlim=(0, width), ylim=(-0.2, height), aspect="auto")
        ax.axis("off")
        canvas.savefig(Path(__file__).with_name(f"{name}.svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
