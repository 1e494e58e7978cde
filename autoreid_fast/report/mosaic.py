"""Rows of small pictures as one figure: for files and for TensorBoard."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from autoreid_fast.report.theme import COLORS, new_figure, style

WIDTH = 62.0
GAP = 12.0
HEADING = 26.0
CAPTION = 20.0


class Tile(NamedTuple):
    """(H, W, 3) uint8, a caption below, and whether it is right, wrong, or neither ("")."""

    image: np.ndarray
    caption: str
    verdict: str = ""


class Row(NamedTuple):
    """Pictures under a heading."""

    heading: str
    tiles: Sequence[Tile]


def mosaic(rows: Sequence[Row]) -> Figure:
    """All rows, one below the other; right and wrong have frames as on a page, solid and dashed."""
    tallest = max(tile.image.shape[0] / tile.image.shape[1] for row in rows for tile in row.tiles)
    height = WIDTH * tallest
    step = HEADING + height + CAPTION + GAP
    columns = max(len(row.tiles) for row in rows)
    size = (columns * (WIDTH + GAP) + GAP, len(rows) * step)
    with style():
        figure = new_figure(*size)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, size[0]), ylim=(size[1], 0))
        axes.axis("off")
        for place, row in enumerate(rows):
            top = place * step + HEADING
            axes.text(GAP, top - 10, row.heading, weight="bold", size=10)
            for column, tile in enumerate(row.tiles):
                left = GAP + column * (WIDTH + GAP)
                bottom = top + WIDTH * tile.image.shape[0] / tile.image.shape[1]
                axes.imshow(tile.image, extent=(left, left + WIDTH, bottom, top), aspect="auto", zorder=2)
                axes.text(left + WIDTH / 2, bottom + 13, tile.caption, size=8, ha="center")
                if tile.verdict:
                    right = tile.verdict == "right"
                    axes.add_patch(
                        Rectangle(
                            (left, top),
                            WIDTH,
                            bottom - top,
                            fill=False,
                            edgecolor=COLORS["green" if right else "orange"],
                            linewidth=2.6,
                            linestyle="-" if right else (0, (2.2, 1.2)),
                            zorder=3,
                        )
                    )
        axes.set(xlim=(0, size[0]), ylim=(size[1], 0))
    return figure
