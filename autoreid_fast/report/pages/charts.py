"""Sections of charts, and the figures that a page collects to write as files."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from autoreid_fast.report.pages.page import Section, render
from autoreid_fast.report.plots.theme import Drawing

Drawings = dict[str, Drawing]
"""Figures of a page by the names of their files; every section adds its own."""


def charts_section(anchor: str, title: str, charts: Mapping[str, Figure], drawings: Drawings) -> Section:
    """Section of charts side by side."""
    elements = []
    for name, chart in charts.items():
        drawings[name] = Drawing(chart)
        elements.append(drawings[name].inline(name, chart.axes[0].get_title(loc="left") or name))
    return Section(anchor, title, render("charts", charts=elements))
