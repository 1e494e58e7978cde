"""Self-contained HTML pages, and the templates of their sections.

Templates escape all text, including file names. A content security policy keeps the browser from loading or
running anything outside the file.
"""

import base64
import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from autoreid_fast import __version__
from autoreid_fast.errors import AutoReIDError

logger = logging.getLogger("autoreid_fast")

FOOTER = f"autoreid_fast {__version__}"


class Section(NamedTuple):
    """Section of a page."""

    anchor: str  # its id in the page
    title: str
    body: Markup  # HTML from `render`


MakeSection = Callable[[], Section | None]
"""Makes a section; None if the runs have no data for it."""


def drawn(sections: Iterable[MakeSection]) -> list[Section]:
    """Make the sections of a page; one whose data cannot be drawn is left out, with a warning."""
    made = []
    for make in sections:
        try:
            made.append(make())
        except AutoReIDError as error:
            logger.warning("%s; left out of the page", error)
    return [section for section in made if section is not None]


class Table(NamedTuple):
    """Table whose rows begin with a heading; entries are right-aligned numbers, or left-aligned text."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    bold_column: int | None = None
    text: bool = False
    total: bool = False  # whether the last row is the sum of the others


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("autoreid_fast.report.pages"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def render(template: str, **values: Any) -> Markup:
    """Render ``templates/<template>.html``; plain strings among ``values`` are escaped."""
    return Markup(_templates().get_template(f"{template}.html").render(**values))


def render_table(table: Table, note: str = "") -> Markup:
    """HTML of a table, with a note below."""
    return render("table", table=table, note=note)


def render_page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The complete HTML file."""
    loader = jinja2.PackageLoader("autoreid_fast.report.pages")
    style, script = (loader.get_source(_templates(), name)[0] for name in ("style.css", "script.js"))
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return str(
        render(
            "page",
            title=title,
            subtitle=subtitle,
            sections=sections,
            style=Markup(style),
            script=Markup(script),
            script_hash=script_hash,
            footer=FOOTER,
        )
    )
