"""Ranked lists for people: a query and its nearest gallery images, each marked right or wrong."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from autoreid_fast.errors import AutoReIDError, describe_error

Verdict = Literal["right", "wrong", ""]


class Tile(NamedTuple):
    """One picture of a ranked list, with its caption."""

    picture: str  # JPEG in base64, from `evaluation.retrieval.thumbnail`
    path: str  # shown as a tooltip
    caption: Sequence[str]  # short lines
    verdict: Verdict = ""


class RankedList(NamedTuple):
    """A query and its entries, nearest first."""

    title: str
    query: Tile
    entries: Sequence[Tile]
    gap_after: int = -1  # ranks are left out after this many entries; -1: none are


def ranked_list(record: Mapping[str, Any]) -> RankedList:
    """Read one of the lists in ``retrieval.json``."""
    entries: list[Tile] = []
    first_match_is_late = record["first_hit"] > len(record["entries"])
    for position, entry in enumerate(record["entries"], start=1):
        rank = record["first_hit"] if first_match_is_late and entry["match"] else position
        entries.append(_tile(entry, str(rank), "right" if entry["match"] else "wrong"))
    matches = "1 match" if record["matches"] == 1 else f"{record['matches']} matches"
    title = (
        f"{record['kind'].capitalize()}: AP {100 * record['average_precision']:.1f} %, {matches}, "
        f"the first at rank {record['first_hit']}"
    )
    gap_after = len(entries) - 1 if first_match_is_late else -1
    return RankedList(title, _tile(record["query"], "query", ""), entries, gap_after)


def _tile(image: Mapping[str, Any], first_line: str, verdict: Verdict) -> Tile:
    camera = [] if image["camera"] is None else [f"camera {image['camera']}"]
    return Tile(image["picture"], image["path"], [first_line, *camera], verdict)


def decode_picture(picture: str) -> np.ndarray:
    """Decode a JPEG in base64 to (H, W, 3) uint8.

    Raises:
        AutoReIDError: it is not one.
    """
    try:
        with Image.open(io.BytesIO(base64.b64decode(picture)), formats=("JPEG",)) as image:
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow raises errors of many types for broken bytes
        raise AutoReIDError(f"a picture in retrieval.json is not a JPEG ({describe_error(error)})") from None
