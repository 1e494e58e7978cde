"""A table's results: what the runs have left so far, beside what the paper prints."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import log
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from autoreid_fast.files import write_json, write_text
from autoreid_fast.nas.space import search_space
from autoreid_fast.paper.tables import RowSpec, TableSpec
from autoreid_fast.report.text_tables import plain_text
from autoreid_fast.search.config import SearchConfig
from autoreid_fast.tables.plan import Cell
from autoreid_fast.tables.scale import SCALES

COSTS = {"params_M": 2, "flops_G": 3}
"""Columns that are no shares, and the digits they are shown with."""
NAMES = {
    "rank1": "rank-1",
    "rank5": "rank-5",
    "rank10": "rank-10",
    "params_M": "params M",
    "flops_G": "GFLOPs",
}
NOT_YET, NEVER = "…", "–"
CHOICES = {
    "part_aware_normal": "part_aware of 8, normal",
    "part_aware_reduce": "part_aware of 8, reduce",
    "entropy_normal": "entropy %, normal",
    "entropy_reduce": "entropy %, reduce",
}
SEARCHES = (
    "What the searches chose: part_aware among a cell's 8 operations (alphas without any preference would "
    "choose it 1.3 times); entropy of softmax(alpha) in per cent of the logarithm of the candidates (100: no "
    "preference)."
)


def results(
    number: int, table: TableSpec, rows: Sequence[RowSpec], cells: Sequence[Cell], scale: str
) -> dict[str, Any]:
    """Everything about the table, for JSON: by row and column the paper's figure, and ours by seed.

    ``mAP`` and ranks are in per cent. ``deviation`` is the sample's, None for one seed.
    """
    seeds = sorted({cell.seed for cell in cells})
    found = {
        (cell.row, cell.variant, cell.seed): _read(cell.task.run / "metrics.json") | _read(cell.task.result)
        for cell in cells
        if cell.task.result.exists()
    }
    parts = {column: _parts(column, table) for column in table.columns}
    listed = []
    for row in rows:
        ours = {}
        for column, (variant, metric) in parts.items():
            values = {seed: found.get((row.name, variant, seed), {}).get(metric) for seed in seeds}
            scale_by = 1 if metric in COSTS else 100
            ours[column] = _summary({seed: scale_by * v for seed, v in values.items() if v is not None})
        paper = dict(zip(table.columns, row.paper, strict=True))
        listed.append(
            {
                "name": row.name,
                "runs": row.runs,
                "paper": paper,
                "ours": ours,
                "search": _choices([cell for cell in cells if cell.row == row.name]),
            }
        )
    return {
        "table": number,
        "title": table.title,
        "scale": scale,
        "seeds": seeds,
        "runs_done": len(found),
        "runs": len(cells),
        "columns": {
            column: f"{variant} {NAMES.get(metric, metric)}".strip()
            for column, (variant, metric) in parts.items()
        },
        "rows": listed,
    }


def _choices(cells: Sequence[Cell]) -> dict[str, Any] | None:
    """What a row's searches have chosen, over the seeds that are done; None for a row without a search."""
    searches = {cell.seed: cell.search for cell in cells if cell.search is not None}
    if not searches:
        return None
    found = {}
    for seed, task in searches.items():
        if task.result.exists() and isinstance(task.config, SearchConfig):
            found[seed] = _choice(_read(task.result), search_space(task.config.space))
    return {name: _summary({s: v[name] for s, v in found.items() if name in v}) for name in CHOICES}


def _choice(figures: Mapping[str, Any], candidates: Sequence[str]) -> dict[str, float]:
    """What one search has chosen; without part_aware where that was no candidate."""
    choice: dict[str, float] = {}
    for cell in ("normal", "reduce"):
        operations = [op for node in figures["genotype"][cell] for op, _ in node]
        if "part_aware" in candidates:
            choice[f"part_aware_{cell}"] = operations.count("part_aware")
        choice[f"entropy_{cell}"] = 100 * figures[f"entropy_{cell}"] / log(len(candidates))
    return choice


def _parts(column: str, table: TableSpec) -> tuple[str, str]:
    """The variant and the name in metrics.json that a column stands for."""
    variant, _, metric = column.partition("_")
    return (variant, metric) if variant in table.variants else ("", column)


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _summary(values: Mapping[int, float]) -> dict[str, Any] | None:
    """Mean and deviation of one figure over the seeds that have it; None where none has."""
    if not values:
        return None
    deviation = stdev(values.values()) if len(values) > 1 else None
    return {
        "mean": mean(values.values()),
        "deviation": deviation,
        "seeds": {str(s): v for s, v in values.items()},
    }


def write_results(out: Path, result: Mapping[str, Any]) -> None:
    """``table.txt``, ``table.md`` and ``table.json``."""
    write_text(out / "table.txt", as_text(result) + "\n")
    write_text(out / "table.md", as_markdown(result) + "\n")
    write_json(out / "table.json", result)


def as_text(result: Mapping[str, Any]) -> str:
    """The table for a terminal, and what its searches chose."""
    table = Table(box=SIMPLE_HEAD, header_style="bold")
    table.add_column("row")
    for label in result["columns"].values():
        for whose in ("paper", "ours"):
            table.add_column(f"{label}\n{whose}", justify="right")
    for cells in _lines(result):
        table.add_row(*map(Text, cells))
    parts = [*_heading(result), plain_text(table, width=200)]
    if searched := list(_search_lines(result)):
        choices = Table(box=SIMPLE_HEAD, header_style="bold")
        choices.add_column("row")
        for label in CHOICES.values():
            choices.add_column(label.replace(", ", "\n"), justify="right")
        for cells in searched:
            choices.add_row(*map(Text, cells))
        parts += ["", SEARCHES, plain_text(choices, width=200)]
    return "\n".join(parts)


def as_markdown(result: Mapping[str, Any]) -> str:
    """The table for a README, and what its searches chose."""
    labels = result["columns"].values()
    headers = ["row", *(f"{label} {whose}" for label in labels for whose in ("paper", "ours"))]
    parts = [*_heading(result), _markdown(headers, _lines(result))]
    if searched := list(_search_lines(result)):
        parts += [SEARCHES, _markdown(["row", *CHOICES.values()], searched)]
    return "\n\n".join(parts)


def _markdown(headers: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = "|---" + "|---:" * (len(headers) - 1) + "|"
    return "\n".join([_bars(headers), rule, *map(_bars, lines)])


def _bars(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _heading(result: Mapping[str, Any]) -> list[str]:
    lines = [f"Table {result['table']}: {result['title']}"]
    lines += [SCALES[result["scale"]].header] if result["scale"] in SCALES else []
    seeds = len(result["seeds"])
    lines.append(
        f"Ours: {result['runs_done']} of {result['runs']} runs; "
        + (
            f"mean ± deviation over seeds {', '.join(map(str, result['seeds']))}."
            if seeds > 1
            else "one seed."
        )
        + f" {NOT_YET}: not finished; {NEVER}: not run, or not printed by the paper."
    )
    return lines


def _lines(result: Mapping[str, Any]) -> Iterator[list[str]]:
    for row in result["rows"]:
        cells = [row["name"]]
        for column in result["columns"]:
            paper, ours = row["paper"][column], row["ours"][column]
            cells.append(NEVER if paper is None else str(paper))
            if ours is None:
                cells.append(NOT_YET if row["runs"] else NEVER)
                continue
            cells.append(_shown(ours, COSTS.get(column, 1), deviation=column not in COSTS))
        yield cells


def _search_lines(result: Mapping[str, Any]) -> Iterator[list[str]]:
    """The rows whose networks a search has found: what the searches chose."""
    for row in result["rows"]:
        if row["search"] is not None:
            # a search that has ended has entropies, and no part_aware where that was no candidate
            missing = NOT_YET if row["search"]["entropy_normal"] is None else NEVER
            summaries = (row["search"][name] for name in CHOICES)
            yield [row["name"], *(missing if one is None else _shown(one, 1) for one in summaries)]


def _shown(summary: Mapping[str, Any], digits: int, deviation: bool = True) -> str:
    shown = f"{summary['mean']:.{digits}f}"
    if deviation and summary["deviation"] is not None:
        shown += f" ± {summary['deviation']:.{digits}f}"
    return shown
