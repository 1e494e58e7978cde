"""Sections of pictures: ranked lists and saliency maps."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from autoreid_fast.evaluation.thumbnail import JPEG_QUALITY
from autoreid_fast.report.pages.charts import Drawings
from autoreid_fast.report.pages.page import Section, render
from autoreid_fast.report.pages.ranked_lists import render_ranked_lists
from autoreid_fast.report.plots.ranked_lists import ranked_lists_figure
from autoreid_fast.report.plots.saliency import query_overlay, saliency_caption, saliency_figure
from autoreid_fast.report.plots.theme import Drawing
from autoreid_fast.report.ranked_list import ranked_list
from autoreid_fast.report.run_view import RunView


def lists_section(run: RunView, drawings: Drawings) -> Section | None:
    """Ranked lists of the best, typical and worst queries."""
    records = _lists(run)
    if not records:
        return None
    lists = [ranked_list(record) for record in records]
    drawings["ranked-lists"] = Drawing(ranked_lists_figure(lists))
    note = (
        "On the left the query, then its nearest gallery images. Solid frame and tick: the same person; "
        "dashed frame and cross: another person. Junk, and images of the query's person from the query's "
        "camera, are left out, as in the evaluation protocol."
    )
    return Section("lists", "Ranked lists", render_ranked_lists(lists, note))


def saliency_section(run: RunView, drawings: Drawings) -> Section | None:
    """Saliency maps of the queries of the ranked lists."""
    records = [record for record in _lists(run) if "looks" in record["query"]]
    if not records:
        return None
    drawings["saliency"] = Drawing(saliency_figure(records))
    pairs = [
        {
            "path": record["query"]["path"],
            "picture": record["query"]["picture"],
            "overlay": _jpeg(query_overlay(record)),
            "caption": saliency_caption(record),
        }
        for record in records
    ]
    rows, columns = np.shape(records[0]["query"]["looks"])
    note = (
        f"The feature is the mean over the {rows} x {columns} positions of the last feature map. The "
        "brighter a position, the larger its part of the feature's squared length."
    )
    return Section("saliency", "Saliency maps", render("saliency", pairs=pairs, note=note))


def _lists(run: RunView) -> Sequence[dict[str, Any]]:
    return [] if run.retrieval is None else run.retrieval["lists"]


def _jpeg(image: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=JPEG_QUALITY)
    return base64.b64encode(stream.getvalue()).decode("ascii")
