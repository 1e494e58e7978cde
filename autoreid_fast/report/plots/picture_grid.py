"""Rows of small pictures as one figure, for files and for TensorBoard."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from autoreid_fast.report.plots.theme import COLORS, new_figure, style

WIDTH = 62.0
GAP = 12.0
HEADING_HEIGHT = 26.0
CAPTION_HEIGHT = 20.0

Frame = Literal["right", "wrong", ""]
"""A solid green frame, a dashed orange one, or none."""


class Picture(NamedTuple):
    """Picture (H, W, 3) uint8, its caption, and its frame."""

    image: np.ndarray
    caption: str
    frame: Frame = ""


class PictureRow(NamedTuple):
    """Pictures side by side under a heading."""

    heading: str
    pictures: Sequence[Picture]


def picture_grid(rows: Sequence[PictureRow]) -> Figure:
    """Draw rows of pictures, one below the other; all pictures have the same width."""
    tallest = max(_height(picture) for row in rows for picture in row.pictures)
    row_height = HEADING_HEIGHT + tallest + CAPTION_HEIGHT + GAP
    columns = max(len(row.pictures) for row in rows)
    width, height = columns * (WIDTH + GAP) + GAP, len(rows) * row_height
    with style():
        figure = new_figure(width, height)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.axis("off")
        for index, row in enumerate(rows):
            top = index * row_height + HEADING_HEIGHT
            axes.text(GAP, top - 10, row.heading, weight="bold", size=10)
            for column, picture in enumerate(row.pictures):
                _draw_picture(axes, picture, GAP + column * (WIDTH + GAP), top)
        axes.set(xlim=(0, width), ylim=(height, 0))  # after imshow, which changes them
    return figure


def _height(picture: Picture) -> float:
    return WIDTH * picture.image.shape[0] / picture.image.shape[1]


def _draw_picture(axes: Axes, picture: Picture, left: float, top: float) -> None:
    height = _height(picture)
    bottom = top + height
    axes.imshow(picture.image, extent=(left, left + WIDTH, bottom, top), aspect="auto", zorder=2)
    axes.text(left + WIDTH / 2, bottom + 13, picture.caption, size=8, ha="center")
    if picture.frame:
        right = picture.frame == "right"
        axes.add_patch(
            Rectangle(
                (left, top),
                WIDTH,
                height,
                fill=False,
                edgecolor=COLORS["green" if right else "orange"],
                linewidth=2.6,
                linestyle="-" if right else (0, (2.2, 1.2)),
                zorder=3,
            )
        )
