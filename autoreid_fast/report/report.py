"""A report: one page of what a run, or a folder of runs, has left, and its figures as files."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from autoreid_fast.files import write_text
from autoreid_fast.report import sections
from autoreid_fast.report.page import Section, page
from autoreid_fast.report.run_view import RunView, read_run, run_of, runs_in
from autoreid_fast.runs.folder import RunFolder

logger = logging.getLogger("autoreid_fast")

PAGE = "index.html"


def write_report(folder: Path, beside: Path | None = None) -> Path:
    """Write ``folder``/report/: ``index.html``, one file, and its figures as SVG and PNG beside it.

    Args:
        folder: a run folder, or a folder of runs, as `demo` leaves it.
        beside: a run whose figures stand beside those of ``folder``; by default, of an evaluation, the
            training that it evaluates.

    Returns:
        The page.

    Raises:
        AutoReIDError: a folder holds no run, or files that cannot be read.
    """
    runs = runs_in(folder)
    other = read_run(beside) if beside is not None else run_of(runs[0])
    drawn: sections.Figures = {}
    parts = [part for part in _sections(runs, other, drawn) if part is not None]
    out = RunFolder(folder).report
    write_text(out / PAGE, page(folder.resolve().name, _subtitle(runs), parts))
    for name, drawing in drawn.items():
        drawing.save(out, name)
    return out / PAGE


def draw_report(folder: Path) -> None:
    """`write_report` at the end of a run, which must not fail for it: what goes wrong is logged."""
    begin = time.perf_counter()
    try:
        where = write_report(folder)
        logger.info("report: %s (%.1f s)", where, time.perf_counter() - begin)
    except Exception as error:
        logger.warning("no report of %s: %s: %s", folder, type(error).__name__, " ".join(str(error).split()))


def _sections(
    runs: Sequence[RunView], beside: RunView | None, drawn: sections.Figures
) -> list[Section | None]:
    searches = [run for run in runs if run.command == "search"]
    others = [run for run in runs if run.command != "search"]
    parts = [sections.ranking_section(others, beside)]
    for search in searches[:1]:
        parts += [
            sections.search_section(search),
            sections.cells_section([search], drawn),
            sections.alpha_section(search, drawn),
            sections.history_section(search, drawn, "Curves of the search", "search-curves"),
        ]
    if not searches and others:
        parts.append(sections.cells_section(others[:1], drawn))
    if len(others) == 1:
        parts.append(sections.history_section(others[0], drawn, "Curves of the training", "curves"))
    elif others:
        parts.append(sections.compared_section(others, drawn))
    parts.append(sections.curve_section(others, drawn))
    for run in others[:1]:
        parts += [
            sections.evaluations_section(run),
            sections.lists_section(run, drawn),
            sections.looks_section(run, drawn),
        ]
    parts += [
        sections.costs_section(others),
        sections.config_section(runs),
        sections.machine_section(runs),
    ]
    return parts


def _subtitle(runs: Sequence[RunView]) -> str:
    data = runs[0].data
    words = [f"{len(runs)} runs" if len(runs) > 1 else runs[0].command, f"on {data}"]
    trained = run_of(runs[0])
    network = trained.name if trained else runs[0].config.get("network")
    if len(runs) == 1 and network:
        words.insert(1, f"of {network}")
    return " ".join(words) + f", {str(runs[0].environment.get('date', ''))[:10]}"
