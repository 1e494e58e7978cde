"""The table of results that a run ends with."""

from collections.abc import Mapping
from io import StringIO
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text


def results_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """One row a network (its ``metrics.json``), the same networks untrained, and chance; in per cent."""
    table = Table(box=SIMPLE_HEAD, header_style="bold")
    table.add_column("network")
    for column in ("rank-1", "rank-5", "rank-10", "mAP", "mINP", "params M", "GFLOPs"):
        table.add_column(column, justify="right")
    for name, metrics in results.items():
        costs = (f"{metrics['params_M']:.2f}", f"{metrics['flops_G']:.3f}")
        table.add_row(Text(name), *_shares(metrics), *costs, style="bold")
    for name, metrics in results.items():
        table.add_row(Text(f"{name}, untrained"), *_shares(metrics["untrained"]))
    chance = next(iter(results.values()))["chance"]
    table.add_row("chance", *_shares(chance))
    return plain_text(table)


def plain_text(table: Table, width: int = 110) -> str:
    """A table as lines of plain text, at most ``width`` characters wide."""
    text = StringIO()
    Console(file=text, width=width, no_color=True).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _shares(metrics: Mapping[str, Any]) -> list[str]:
    keys = ("rank1", "rank5", "rank10", "mAP", "mINP")
    return [f"{100 * metrics[key]:.1f}" if key in metrics else "" for key in keys]
