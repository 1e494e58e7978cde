"""Report of a run, or of a folder of runs."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from autoreid_fast.files import write_text
from autoreid_fast.report.pages.architecture import alpha_section, cells_section, search_section
from autoreid_fast.report.pages.charts import Drawings
from autoreid_fast.report.pages.curves import comparison_section, history_section, ranking_section
from autoreid_fast.report.pages.page import MakeSection, drawn, render_page
from autoreid_fast.report.pages.pictures import lists_section, saliency_section
from autoreid_fast.report.pages.results import evaluations_section, results_section
from autoreid_fast.report.pages.setup import config_section, costs_section, machine_section
from autoreid_fast.report.run_view import RunView, evaluated_run, read_run, read_runs
from autoreid_fast.runs.folder import RunFolder

PAGE = "index.html"


def write_report(folder: Path, beside: Path | None = None) -> Path:
    """Write ``folder``/report/: a self-contained ``index.html``, and its figures as SVG and PNG.

    Args:
        folder: a run folder, or a folder of runs such as `demo` writes.
        beside: a run whose metrics are shown beside those of ``folder``; default: if ``folder`` is an
            evaluation, the training that it evaluates.

    Returns:
        Path of the page.

    Raises:
        AutoReIDError: a folder holds no run, or one of its files cannot be read.
    """
    runs = read_runs(folder)
    other = read_run(beside) if beside is not None else evaluated_run(runs[0])
    drawings: Drawings = {}
    sections = drawn(_sections(runs, other, drawings))
    out = RunFolder(folder).report
    write_text(out / PAGE, render_page(folder.resolve().name, _subtitle(runs), sections))
    for name, drawing in drawings.items():
        drawing.save(out, name)
    return out / PAGE


def _sections(runs: Sequence[RunView], beside: RunView | None, drawings: Drawings) -> list[MakeSection]:
    """Functions that build the sections, in the order of the page."""
    searches = [run for run in runs if run.command == "search"]
    others = [run for run in runs if run.command != "search"]
    sections: list[MakeSection] = [partial(results_section, others, beside)]
    if searches:
        search = searches[0]
        sections += [
            partial(search_section, search),
            partial(cells_section, [search], drawings),
            partial(alpha_section, search, drawings),
            partial(history_section, search, drawings, "Curves of the search", "search-curves"),
        ]
    elif others:
        sections.append(partial(cells_section, others[:1], drawings))
    if len(others) == 1:
        sections.append(partial(history_section, others[0], drawings, "Curves of the training", "curves"))
    elif others:
        sections.append(partial(comparison_section, others, drawings))
    sections.append(partial(ranking_section, others, drawings))
    if others:
        run = others[0]
        sections += [
            partial(evaluations_section, run),
            partial(lists_section, run, drawings),
            partial(saliency_section, run, drawings),
        ]
    about = (partial(costs_section, others), partial(config_section, runs), partial(machine_section, runs))
    return [*sections, *about]


def _subtitle(runs: Sequence[RunView]) -> str:
    """For instance "train of autoreid_retrieval on market1501, 2026-11-28"."""
    first = runs[0]
    if len(runs) > 1:
        parts = [f"{len(runs)} runs"]
    else:
        evaluated = evaluated_run(first)
        network = evaluated.name if evaluated else first.config.get("network")
        parts = [first.command, *([f"of {network}"] if network else [])]
    return " ".join([*parts, f"on {first.data}"]) + f", {str(first.environment.get('date', ''))[:10]}"
