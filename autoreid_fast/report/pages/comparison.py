"""Page that compares runs."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from autoreid_fast.files import write_text
from autoreid_fast.report.comparison import comparison, config_differences
from autoreid_fast.report.pages.architecture import cells_section
from autoreid_fast.report.pages.charts import Drawings
from autoreid_fast.report.pages.curves import comparison_section, ranking_section
from autoreid_fast.report.pages.page import MakeSection, Section, Table, drawn, render_page, render_table
from autoreid_fast.report.pages.setup import costs_section, machine_section
from autoreid_fast.report.run_view import RunView


def write_comparison(runs: Sequence[RunView], out: Path) -> None:
    """Write the page that compares ``runs`` to the file ``out``."""
    drawings: Drawings = {}  # shown in the page only
    sections: list[MakeSection] = [
        lambda: Section("results", "Results", render_table(comparison(runs))),
        partial(cells_section, runs, drawings),
        partial(comparison_section, runs, drawings),
        partial(ranking_section, runs, drawings),
        partial(costs_section, runs),
        partial(_differences_section, runs),
        partial(machine_section, runs),
    ]
    subtitle = ", ".join(run.name for run in runs)
    page = render_page(f"{len(runs)} runs compared", subtitle, drawn(sections))
    write_text(out, page)


def _differences_section(runs: Sequence[RunView]) -> Section:
    rows = config_differences(runs)
    if rows:
        body = render_table(Table(["", *(run.name for run in runs)], rows, text=True))
    else:
        body = render_table(Table([], []), "None.")
    return Section("config", "Differences of the configurations", body)
