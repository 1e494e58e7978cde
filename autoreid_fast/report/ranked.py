"""Ranked lists as people look at them: a query and what it found, each picture framed by its verdict."""

import base64
import io
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from autoreid_fast.report.mosaic import Row, Tile, mosaic
from autoreid_fast.report.page import render

Verdict = Literal["right", "wrong", ""]


class Card(NamedTuple):
    """One picture of a list.

    ``picture``: a JPEG in base64 (`engine.retrieval.thumbnail`). ``name``: the file, shown when pointed at.
    ``caption``: short lines below. ``verdict``: right and wrong have frames and marks of their own.
    """

    picture: str
    name: str
    caption: Sequence[str]
    verdict: Verdict = ""


class RankedList(NamedTuple):
    """A query and its entries, nearest first; ``gap_after`` so many of them ranks are left out (-1: none)."""

    title: str
    query: Card
    entries: Sequence[Card]
    gap_after: int = -1


def ranked_lists(lists: Sequence[RankedList], note: str = "", large: bool = False) -> Markup:
    """HTML of ranked lists, for a `Section`; ``large``: with room for file names below the pictures."""
    return render("ranked", lists=lists, note=note, large=large)


def ranked_figure(lists: Sequence[RankedList]) -> Figure:
    """The same lists as one figure."""
    return mosaic(
        [Row(ranked.title, [_tile(card) for card in (ranked.query, *ranked.entries)]) for ranked in lists]
    )


def decoded_picture(text: str) -> np.ndarray:
    """(H, W, 3) uint8 of a JPEG in base64."""
    with Image.open(io.BytesIO(base64.b64decode(text)), formats=("JPEG",)) as image:
        return np.asarray(image.convert("RGB"))


def _tile(card: Card) -> Tile:
    return Tile(decoded_picture(card.picture), ", ".join(card.caption), card.verdict)
