"""Compare runs: a table of their metrics, and the differences of their configs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.report.metrics import RETRIEVAL_METRICS, percent, training_time
from autoreid_fast.report.pages.page import Table
from autoreid_fast.report.run_view import RunView, read_runs
from autoreid_fast.report.text_tables import plain_text


def runs_to_compare(folders: Sequence[Path]) -> list[RunView]:
    """Read the runs of ``folders``, which may be folders of runs, and give them distinct names.

    Raises:
        AutoReIDError: fewer than two runs, or one that cannot be read.
    """
    runs = [run for folder in folders for run in read_runs(folder)]
    runs = list({run.path.resolve(): run for run in runs}.values())
    if len(runs) < 2:
        raise AutoReIDError("compare needs two runs at least: give their folders")
    return with_distinct_names(runs)


def with_distinct_names(runs: Sequence[RunView]) -> list[RunView]:
    """Name each run by as many parts of its path's end as make all names distinct."""
    paths = [run.path.resolve().parts for run in runs]
    depth = 1
    while len({parts[-depth:] for parts in paths}) < len(runs):
        depth += 1
    return [replace(run, name="/".join(parts[-depth:])) for run, parts in zip(runs, paths, strict=True)]


def comparison(runs: Sequence[RunView]) -> Table:
    """Table with one row per run: retrieval, costs, epochs, time and loss, without empty columns."""
    metrics = {name: label for name, label in RETRIEVAL_METRICS.items() if name != "mAP_trapezoid"}
    header = ["run", *metrics.values(), "params, M", "GFLOPs", "epochs", "time", "loss"]
    rows = [
        [run.name, *(percent(run.metrics, name) for name in metrics), *_costs_and_loss(run)] for run in runs
    ]
    used = [column for column in range(len(header)) if any(row[column] for row in rows)]
    return Table([header[column] for column in used], [[row[column] for column in used] for row in rows])


def comparison_text(runs: Sequence[RunView]) -> str:
    """`comparison` for a terminal."""
    content = comparison(runs)
    table = RichTable(box=SIMPLE_HEAD, header_style="bold")
    for index, label in enumerate(content.header):
        table.add_column(Text(label), justify="right" if index else "left", no_wrap=True)
    for row in content.rows:
        table.add_row(*map(Text, row))
    return plain_text(table, width=200)


def config_differences(runs: Sequence[RunView]) -> list[list[str]]:
    """Rows of a field's name and its value in every run, for the fields in which the runs differ.

    A run that lacks a field has an empty value. Fields that only one command has are not differences.
    """
    configs = [{"command": run.command, **_flatten(run.config)} for run in runs]
    commands = [run.command for run in runs]
    names = dict.fromkeys(name for config in configs for name in config)
    rows = [[name, *(_show(config.get(name, "")) for config in configs)] for name in names]
    return [row for row in rows if _differ(row[1:], commands)]


def _differ(values: Sequence[str], commands: Sequence[str]) -> bool:
    """Whether runs that have the field disagree, or runs of one command both have it and lack it."""
    by_command = set(zip(commands, values, strict=True))
    return len(set(filter(None, values))) > 1 or len(by_command) > len(set(commands))


def _costs_and_loss(run: RunView) -> list[str]:
    costs = [f"{run.metrics[name]:.3g}" if name in run.metrics else "" for name in ("params_M", "flops_G")]
    last = run.history[-1] if run.history else {}
    loss = last.get("loss", last.get("omega_loss"))
    time = training_time(run) if run.history else ""
    return [*costs, str(len(run.history) or ""), time, f"{loss:.3f}" if loss is not None else ""]


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _show(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
