"""A table's results: what the runs have left so far, beside what the paper prints."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from autoreid_fast.files import write_json, write_text
from autoreid_fast.report.results import plain_text
from autoreid_fast.tables.plan import Cell
from autoreid_fast.tables.spec import RowSpec, TableSpec

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
SMALL = (
    "SMALL SCALE: synthetic pedestrians, a quarter of C, half of l, a few epochs. This checks the "
    "machinery; the figures say nothing about the paper's."
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
        listed.append({"name": row.name, "runs": row.runs, "paper": paper, "ours": ours})
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
    """The table for a terminal."""
    table = Table(box=SIMPLE_HEAD, header_style="bold")
    table.add_column("row")
    for label in result["columns"].values():
        for whose in ("paper", "ours"):
            table.add_column(f"{label}\n{whose}", justify="right")
    for cells in _lines(result):
        table.add_row(*map(Text, cells))
    return "\n".join([*_heading(result), plain_text(table, width=200)])


def as_markdown(result: Mapping[str, Any]) -> str:
    """The table for a README."""
    labels = result["columns"].values()
    headers = ["row", *(f"{label} {whose}" for label in labels for whose in ("paper", "ours"))]
    lines = ["| " + " | ".join(headers) + " |", "|---" + "|---:" * (len(headers) - 1) + "|"]
    lines += ["| " + " | ".join(cells) + " |" for cells in _lines(result)]
    return "\n\n".join([*_heading(result), "\n".join(lines)])


def _heading(result: Mapping[str, Any]) -> list[str]:
    lines = [f"Table {result['table']}: {result['title']}"]
    lines += [SMALL] * (result["scale"] == "small")
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
            digits = COSTS.get(column, 1)
            shown = f"{ours['mean']:.{digits}f}"
            if ours["deviation"] is not None and column not in COSTS:
                shown += f" ± {ours['deviation']:.{digits}f}"
            cells.append(shown)
        yield cells
