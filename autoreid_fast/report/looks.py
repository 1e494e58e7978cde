"""Where the network looks: the shares of the feature map's places, laid over the picture."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from autoreid_fast.evaluation.retrieval import JPEG_QUALITY
from autoreid_fast.report.mosaic import Row, Tile, mosaic
from autoreid_fast.report.page import render
from autoreid_fast.report.ranked import decoded_picture

STRENGTH = 0.62
PAIRS_A_ROW = 3


def overlay(picture: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 picture in gray under a heat map of (h, w) shares, brightest at the largest.

    Places that pull the feature the other way (negative shares) count as none.
    """
    height, width = picture.shape[:2]
    positive = np.maximum(shares, 0)
    heat = positive / max(float(positive.max()), 1e-12)
    large = Image.fromarray(heat.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    heat = np.clip(np.asarray(large), 0, 1)[..., None]
    colors = matplotlib.colormaps["inferno"](heat[..., 0])[..., :3] * 255
    gray = np.asarray(Image.fromarray(picture).convert("L"))[..., None]
    return np.rint((1 - STRENGTH) * gray + STRENGTH * colors).astype(np.uint8)


def looks(lists: Sequence[dict[str, Any]], note: str) -> Markup:
    """HTML: each query and the overlay beside it; every list's query must have ``looks``."""
    pairs = [
        {
            "name": ranked["query"]["path"],
            "picture": ranked["query"]["picture"],
            "overlay": _jpeg(_pair(ranked)[1]),
            "caption": _caption(ranked),
        }
        for ranked in lists
    ]
    return render("looks", pairs=pairs, note=note)


def looks_figure(lists: Sequence[dict[str, Any]]) -> Figure:
    """The same as one figure."""
    rows = []
    for start in range(0, len(lists), PAIRS_A_ROW):
        tiles: list[Tile] = []
        for ranked in lists[start : start + PAIRS_A_ROW]:
            picture, over = _pair(ranked)
            tiles += [Tile(picture, _caption(ranked)), Tile(over, "")]
        rows.append(Row("", tiles))
    return mosaic(rows)


def _pair(ranked: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    picture = decoded_picture(ranked["query"]["picture"])
    return picture, overlay(picture, np.array(ranked["query"]["looks"]))


def _caption(ranked: dict[str, Any]) -> str:
    return f"{ranked['kind']}, AP {100 * ranked['average_precision']:.1f} %"


def _jpeg(image: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=JPEG_QUALITY)
    return base64.b64encode(stream.getvalue()).decode("ascii")
