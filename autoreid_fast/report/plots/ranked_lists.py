"""Ranked lists as one figure."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from autoreid_fast.report.plots.picture_grid import Picture, PictureRow, picture_grid
from autoreid_fast.report.ranked_list import RankedList, Tile, decode_picture


def ranked_lists_figure(lists: Sequence[RankedList]) -> Figure:
    """One row of pictures per list, the query first."""
    return picture_grid(
        [
            PictureRow(ranked.title, [_picture(tile) for tile in (ranked.query, *ranked.entries)])
            for ranked in lists
        ]
    )


def _picture(tile: Tile) -> Picture:
    return Picture(decode_picture(tile.picture), ", ".join(tile.caption), tile.verdict)
