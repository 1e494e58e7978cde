"""Section of results: a run's metrics beside other runs, the paper, the untrained network and chance."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from autoreid_fast.report.metrics import RETRIEVAL_METRICS, percent
from autoreid_fast.report.pages.page import Section, Table, render, render_table
from autoreid_fast.report.published import Published, published
from autoreid_fast.report.run_view import RunView, evaluations_of

ROWS = {
    **RETRIEVAL_METRICS,
    "params_M": "parameters, M",
    "flops_G": "multiply-adds, G",
    "queries": "queries",
    "people": "people",
    "gallery": "gallery (junk, distractors)",
    "cameras": "cameras",
    "rule": "rule",
}
"""Row headings of the table, by the names in ``metrics.json``."""

Column = Mapping[str, str]
"""Values as text by their names in ``metrics.json``."""


class Headline(NamedTuple):
    """Large number at the top of a section, with a second line for comparison."""

    label: str
    value: str
    unit: str
    comparison: str


def results_section(runs: Sequence[RunView], beside: RunView | None) -> Section | None:
    """Headlines of the first evaluated run, and a table of all of them beside ``beside``."""
    evaluated = [run for run in runs if run.evaluated]
    if not evaluated:
        return None
    columns = _columns(evaluated, beside)
    rows = [
        [label, *(column.get(name, "") for column in columns.values())]
        for name, label in ROWS.items()
        if any(name in column for column in columns.values())
    ]
    table = Table(["", *columns], rows, bold_column=1)
    return Section(
        "results", "Results", render("headlines", headlines=_headlines(columns)) + render_table(table)
    )


def _columns(runs: Sequence[RunView], beside: RunView | None) -> dict[str, Column]:
    """Columns of the table by their headings: all runs, ``beside``, the paper, untrained, chance."""
    main = runs[0]
    columns = {run.name: _column(run.metrics) for run in runs}
    if beside is not None:
        name = beside.name if beside.data == main.data else f"{beside.name} on {beside.data}"
        columns[f"beside: {name}" if name in columns else name] = _column(beside.metrics)
    paper = published(main.config) if main.command == "train" else None
    if paper is not None:
        columns[f"paper: {paper.label}"] = _published_column(paper)
    if "untrained" in main.metrics:
        heading = f"{main.name}, untrained" if len(runs) > 1 else "untrained"
        columns[heading] = _column(main.metrics["untrained"])
    columns["chance"] = _column(main.metrics.get("chance", {}))
    return columns


def _column(metrics: Mapping[str, Any]) -> Column:
    column = {name: percent(metrics, name) for name in RETRIEVAL_METRICS if name in metrics}
    for name in ("params_M", "flops_G"):
        if name in metrics:
            column[name] = f"{metrics[name]:.3g}"
    if "num_valid" in metrics and "num_query" in metrics:
        column["queries"] = f"{metrics['num_valid']:,} of {metrics['num_query']:,}"
    if "protocol" in metrics:
        protocol = metrics["protocol"]
        column["people"] = f"{protocol['people']:,}"
        column["gallery"] = f"{protocol['gallery']:,} ({protocol['junk']:,}, {protocol['distractors']:,})"
        column["cameras"] = "not known" if protocol["cameras"] is None else f"{protocol['cameras']:,}"
        column["rule"] = protocol["rule"]
    return column


def _published_column(paper: Published) -> Column:
    return {name: str(figure) for name, figure in paper.figures.items()}


def _headlines(columns: Mapping[str, Column]) -> list[Headline]:
    """Headlines of the first column, compared with the second."""
    (_, main), (other_name, other), *_ = columns.items()
    headlines = []
    for label, name, unit in (
        ("rank-1", "rank1", "%"),
        ("mAP", "mAP", "%"),
        ("mINP", "mINP", "%"),
        ("parameters", "params_M", "M"),
        ("multiply-adds", "flops_G", "G"),
    ):
        if name in main:
            comparison = f"{other_name} {other[name]}" if name in other else ""
            headlines.append(Headline(label, main[name], unit, comparison))
    return headlines


def evaluations_section(run: RunView) -> Section | None:
    """Table of all `eval` runs of a training."""
    rows = [
        [evaluation.name, *(percent(evaluation.metrics, name) for name in RETRIEVAL_METRICS)]
        for evaluation in evaluations_of(run)
    ]
    if not rows:
        return None
    table = Table(["evaluation", *RETRIEVAL_METRICS.values()], rows)
    note = "Measured by eval; each evaluation has its own page in the folder evaluations."
    return Section("evaluations", "Evaluations", render_table(table, note))
