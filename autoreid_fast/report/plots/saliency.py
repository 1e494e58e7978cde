"""Saliency maps of queries, laid over their pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from autoreid_fast.report.plots.picture_grid import Picture, PictureRow, picture_grid
from autoreid_fast.report.ranked_list import decode_picture

OPACITY = 0.62
PAIRS_PER_ROW = 3
MIN_PEAK = 1e-12
"""Smallest maximum to divide by: a map without positive values stays zero."""


def overlay(picture: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    """Lay a saliency map over a grey picture.

    Args:
        picture: (H, W, 3) uint8.
        saliency: (h, w) share of each position of the feature map in the feature; negative values count as 0.

    Returns:
        (H, W, 3) uint8, brightest at the largest value.
    """
    height, width = picture.shape[:2]
    positive = np.maximum(saliency, 0)
    heat = (positive / max(float(positive.max()), MIN_PEAK)).astype(np.float32)
    resized = Image.fromarray(heat).resize((width, height), Image.Resampling.BICUBIC)
    colors = matplotlib.colormaps["inferno"](np.clip(np.asarray(resized), 0, 1))[..., :3] * 255
    gray = np.asarray(Image.fromarray(picture).convert("L"))[..., None]
    return np.rint((1 - OPACITY) * gray + OPACITY * colors).astype(np.uint8)


def query_overlay(record: Mapping[str, Any]) -> np.ndarray:
    """`overlay` of the query of a list in ``retrieval.json``, which must hold its saliency map ("looks")."""
    query = record["query"]
    return overlay(decode_picture(query["picture"]), np.array(query["looks"]))


def saliency_caption(record: Mapping[str, Any]) -> str:
    """Caption of a query: its kind and AP."""
    return f"{record['kind']}, AP {100 * record['average_precision']:.1f} %"


def saliency_figure(records: Sequence[Mapping[str, Any]]) -> Figure:
    """Pairs of picture and overlay, one pair per query."""
    rows = []
    for start in range(0, len(records), PAIRS_PER_ROW):
        pictures: list[Picture] = []
        for record in records[start : start + PAIRS_PER_ROW]:
            pictures.append(Picture(decode_picture(record["query"]["picture"]), saliency_caption(record)))
            pictures.append(Picture(query_overlay(record), ""))
        rows.append(PictureRow("", pictures))
    return picture_grid(rows)
