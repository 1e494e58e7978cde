"""Tables as plain text: the results that a run ends with."""

from collections.abc import Mapping
from io import StringIO
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

RETRIEVAL_COLUMNS = {"rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "mAP": "mAP", "mINP": "mINP"}
"""Column headings of the metrics that ``metrics.json`` holds as fractions."""


def results_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Retrieval in per cent and costs of trained networks, beside the untrained networks and chance.

    Args:
        results: contents of ``metrics.json`` by the name to show.
    """
    table = Table(box=SIMPLE_HEAD, header_style="bold")
    table.add_column("network")
    for column in (*RETRIEVAL_COLUMNS.values(), "params M", "GFLOPs"):
        table.add_column(column, justify="right")
    for name, metrics in results.items():
        costs = (f"{metrics['params_M']:.2f}", f"{metrics['flops_G']:.3f}")
        table.add_row(Text(name), *_retrieval(metrics), *costs, style="bold")
    for name, metrics in results.items():
        if "untrained" in metrics:
            table.add_row(Text(f"{name}, untrained"), *_retrieval(metrics["untrained"]))
    chance = next(iter(results.values()))["chance"]
    table.add_row("chance", *_retrieval(chance))
    return plain_text(table)


def plain_text(table: Table, width: int = 110) -> str:
    """Lines of plain text of a table, at most ``width`` characters wide."""
    text = StringIO()
    Console(file=text, width=width, no_color=True).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _retrieval(metrics: Mapping[str, Any]) -> list[str]:
    return [f"{100 * metrics[key]:.1f}" if key in metrics else "" for key in RETRIEVAL_COLUMNS]
