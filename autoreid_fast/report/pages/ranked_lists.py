"""Ranked lists as HTML."""

from collections.abc import Sequence

from markupsafe import Markup

from autoreid_fast.report.pages.page import render
from autoreid_fast.report.ranked_list import RankedList


def render_ranked_lists(lists: Sequence[RankedList], note: str = "", large: bool = False) -> Markup:
    """HTML of ranked lists; ``large`` leaves room for file names below the pictures."""
    return render("ranked_lists", lists=lists, note=note, large=large)
