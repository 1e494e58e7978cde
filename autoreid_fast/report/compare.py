"""Runs side by side: a table for the terminal, and a page with curves and what differs in the configs."""

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import write_text
from autoreid_fast.report import sections
from autoreid_fast.report.figures import SHARES, share, time_taken
from autoreid_fast.report.page import Section, Table, page, table
from autoreid_fast.report.run_view import RunView, runs_in


def runs_to_compare(folders: Sequence[Path]) -> list[RunView]:
    """The runs of ``folders``, those in a folder of runs included, each by a name of its own.

    Raises:
        AutoReIDError: fewer than two runs, or one that cannot be read.
    """
    runs = [run for folder in folders for run in runs_in(folder)]
    runs = list({run.path.resolve(): run for run in runs}.values())
    if len(runs) < 2:
        raise AutoReIDError("compare needs two runs at least: give their folders")
    return distinct(runs)


def distinct(runs: Sequence[RunView]) -> list[RunView]:
    """The runs, each by a name of its own: as much of its path's end as that takes."""
    parts = [run.path.resolve().parts for run in runs]
    depth = 1
    while len({part[-depth:] for part in parts}) < len(runs):
        depth += 1
    return [
        RunView(**{**vars(run), "name": "/".join(part[-depth:])})
        for run, part in zip(runs, parts, strict=True)
    ]


def comparison(runs: Sequence[RunView]) -> Table:
    """One row a run: figures in per cent, costs, epochs, time and loss; only columns that some run has."""
    shares = [(name, label) for name, label in SHARES if name != "mAP_trapezoid"]
    header = ["run", *(label for _, label in shares), "params, M", "GFLOPs", "epochs", "time", "loss"]
    rows = [[run.name, *(share(run.metrics, name) for name, _ in shares), *_rest(run)] for run in runs]
    used = [column for column in range(len(header)) if any(row[column] for row in rows)]
    return Table([header[column] for column in used], [[row[column] for column in used] for row in rows])


def comparison_text(runs: Sequence[RunView]) -> str:
    """`comparison` for a terminal."""
    content = comparison(runs)
    drawn = RichTable(box=SIMPLE_HEAD, header_style="bold")
    for number, label in enumerate(content.header):
        drawn.add_column(Text(label), justify="right" if number else "left", no_wrap=True)
    for row in content.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    text = StringIO()
    Console(file=text, width=200, no_color=True).print(drawn)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def config_differences(runs: Sequence[RunView]) -> list[list[str]]:
    """Rows of a field and its value in every run, for the fields in which runs differ that could agree.

    A run that does not have a field has nothing there.
    """
    flat = [{"command": run.command, **_flat(run.config)} for run in runs]
    names = dict.fromkeys(name for each in flat for name in each)
    rows = [[name, *(_value(each.get(name, "")) for each in flat)] for name in names]
    commands = [run.command for run in runs]
    return [row for row in rows if _differ(row[1:], commands)]


def _differ(values: Sequence[str], commands: Sequence[str]) -> bool:
    """Whether runs that have the field disagree, or one of a command has it and another of it has not."""
    of_command = set(zip(commands, values, strict=True))
    return len(set(filter(None, values))) > 1 or len(of_command) > len(set(commands))


def write_comparison(runs: Sequence[RunView], out: Path) -> None:
    """Write the page of ``runs`` to the file ``out``."""
    drawn: sections.Figures = {}
    differences = Table(["", *(run.name for run in runs)], config_differences(runs), text=True)
    parts: list[Section | None] = [
        Section("figures", "Figures", table(comparison(runs))),
        sections.cells_section(runs, drawn),
        sections.compared_section(runs, drawn),
        sections.curve_section(runs, drawn),
        sections.costs_section(runs),
        Section(
            "config",
            "What differs in the configurations",
            table(differences) if differences.rows else table(Table([], []), "Nothing."),
        ),
        sections.machine_section(runs),
    ]
    title = f"{len(runs)} runs compared"
    subtitle = ", ".join(run.name for run in runs)
    write_text(out, page(title, subtitle, [part for part in parts if part is not None]))


def _rest(run: RunView) -> list[str]:
    costs = [f"{run.metrics[name]:.3g}" if name in run.metrics else "" for name in ("params_M", "flops_G")]
    last = run.history[-1] if run.history else {}
    loss = last.get("loss", last.get("omega_loss"))
    taken = time_taken(run) if run.history else ""
    return [*costs, str(len(run.history) or ""), taken, f"{loss:.3f}" if loss is not None else ""]


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
