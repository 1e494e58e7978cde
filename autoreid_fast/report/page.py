"""The frame of every page: one HTML file that needs nothing but itself, and sections to put into it.

Text is escaped by the templates, file names included, and a content security policy keeps the browser from
loading or running anything that is not in the file.
"""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from autoreid_fast import __version__

FOOTER = f"autoreid_fast {__version__}"


class Section(NamedTuple):
    """A part of a page: its ``anchor`` in the page's own links, a title, and HTML from `render`."""

    anchor: str
    title: str
    body: Markup


class Table(NamedTuple):
    """A table for `table`: the first cell of a row is its name, the others stand right, or left as ``text``.

    ``strong``: the number of a column that is set in bold, from 0; None for none of them. ``total``: the last
    row is the sum of the others.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: int | None = None
    text: bool = False
    total: bool = False


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("autoreid_fast.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def render(template: str, **values: Any) -> Markup:
    """HTML of ``templates/<template>.html``; plain strings among ``values`` are escaped."""
    return Markup(_templates().get_template(f"{template}.html").render(**values))


def table(content: Table, note: str = "") -> Markup:
    """HTML of a table with a line of explanation."""
    return render("table", table=content, note=note)


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The whole HTML file."""
    source = jinja2.PackageLoader("autoreid_fast.report")
    style, script = (source.get_source(_templates(), name)[0] for name in ("style.css", "script.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return str(
        render(
            "page",
            title=title,
            subtitle=subtitle,
            sections=sections,
            style=Markup(style),
            script=Markup(script),
            digest=digest,
            footer=FOOTER,
        )
    )
