"""Ranked lists as people look at them: a query and what it found, each picture framed by its verdict."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from markupsafe import Markup

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


def ranked_lists(lists: Sequence[RankedList], note: str = "") -> Markup:
    """HTML of ranked lists, for a `Section`."""
    return render("ranked", lists=lists, note=note)
