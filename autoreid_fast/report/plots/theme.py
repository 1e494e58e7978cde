"""Style of all figures, and their conversion to SVG, PNG and pixels.

Figures are drawn once, in the light colours below. On a page these become the style sheet's variables of the
same names, so the browser's dark mode applies to figures too.
"""

import io
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from autoreid_fast.files import atomic_path, write_text

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it logs missing fonts and its cache folder

COLORS = {
    "paper": "#ffffff",
    "ink": "#1d2126",
    "soft": "#5c6670",
    "line": "#d9dde2",
    "blue": "#0b6bb8",
    "orange": "#c8500a",
    "green": "#12805c",
    "purple": "#8a4fb5",
    "sand": "#8a6d1f",
    "rose": "#c23b6b",
    "pool": "#dfeaf4",
    "convolution": "#e9e4f5",
    "skip": "#eceef1",
    "part": "#f9c784",
    "part-ink": "#4a2c00",
    "node": "#1d2127",
}
"""Colours by the names of their variables in `pages/templates/style.css`; no two are equal."""

SERIES_COLORS = ("blue", "orange", "green", "purple", "sand", "rose")
PIXELS_PER_INCH = 72  # one unit of an SVG is one pixel of the page
PNG_DPI = 144  # two pixels per pixel of the page

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 11.0,
    "text.color": COLORS["ink"],
    "text.parse_math": False,  # keep a $ in the name of a run as it is
    "figure.dpi": PIXELS_PER_INCH,
    "figure.facecolor": COLORS["paper"],
    "axes.facecolor": COLORS["paper"],
    "axes.edgecolor": COLORS["line"],
    "axes.labelcolor": COLORS["soft"],
    "axes.titlesize": 12.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLORS["line"],
    "grid.linewidth": 0.7,
    "xtick.color": COLORS["line"],
    "ytick.color": COLORS["line"],
    "xtick.labelcolor": COLORS["soft"],
    "ytick.labelcolor": COLORS["soft"],
    "xtick.labelsize": 10.0,
    "ytick.labelsize": 10.0,
    "legend.frameon": False,
    "legend.fontsize": 10.0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "svg.hashsalt": "autoreid_fast",
}


@contextmanager
def style() -> Iterator[None]:
    """Apply the style; figures must be drawn and saved inside this context.

    Warnings of matplotlib, about a name in a script that its font lacks for instance, do not leave it.
    """
    with matplotlib.rc_context(_STYLE), catch_warnings():
        simplefilter("ignore")
        yield


def new_figure(width: float, height: float) -> Figure:
    """Empty figure of ``width`` x ``height`` pixels of the page."""
    return Figure((round(width) / PIXELS_PER_INCH, round(height) / PIXELS_PER_INCH))


class Drawing:
    """Figure that is drawn once, for the page and for its files."""

    def __init__(self, figure: Figure) -> None:
        self.figure = figure

    @cached_property
    def svg(self) -> str:
        """The figure as an SVG file."""
        stream = io.StringIO()
        with style():
            self.figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
        return stream.getvalue()

    def save(self, folder: Path, name: str) -> None:
        """Write ``<name>.svg`` and ``<name>.png`` into ``folder``, atomically."""
        write_text(folder / f"{name}.svg", self.svg)
        with style(), atomic_path(folder / f"{name}.png") as temporary:
            self.figure.savefig(temporary, format="png", dpi=PNG_DPI, pil_kwargs={"compress_level": 3})

    def inline(self, name: str, label: str) -> Markup:
        """The figure as an SVG element for a page.

        Args:
            name: prefix of the element's ids, so that they are unique in the page.
            label: description for screen readers.
        """
        text = self.svg[self.svg.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        text = re.sub(
            r"<!--.*?-->\s*", "", text, flags=re.DOTALL
        )  # matplotlib repeats every text in a comment
        text = re.sub(r'\sid="([^"]+)"', rf' id="{name}-\1"', text)
        text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
        text = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', text)
        text = text.replace("xlink:href=", "href=")
        for color, value in COLORS.items():
            text = text.replace(value, f"var(--{color})")
        match = re.search(r'viewBox="([^"]+)"', text)
        view_box = match[1] if match else ""
        width = f"--width: {self.figure.get_figwidth() * PIXELS_PER_INCH:.0f}px"
        start_tag = f'<svg viewBox="{view_box}" style="{width}" role="img" aria-label="{escape(label)}">'
        return Markup(re.sub(r"<svg[^>]*>", lambda _: start_tag, text, count=1))


def pixels(figure: Figure) -> np.ndarray:
    """Pixels of a figure, (H, W, 3) uint8."""
    with style():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def series_color(index: int) -> str:
    """Colour of the ``index``-th series of a chart."""
    return COLORS[SERIES_COLORS[index % len(SERIES_COLORS)]]


def line_style(index: int) -> tuple[float, tuple[float, ...]]:
    """Line style of the ``index``-th series: all but the first are dashed, so that none is hidden."""
    return 0, (4, 1.2 + index) if index else ()
