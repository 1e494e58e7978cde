"""Sections of how runs were made: costs of the networks, configs, machines."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import yaml

from autoreid_fast.report.metrics import training_time
from autoreid_fast.report.pages.page import Section, Table, render, render_table
from autoreid_fast.report.run_view import RunView


def costs_section(runs: Sequence[RunView]) -> Section | None:
    """Parameters, multiply-adds and activations per stage."""
    costs = {run.name: run.metrics["costs"] for run in runs if "costs" in run.metrics}
    if not costs:
        return None
    header = ["stage", "parameters, M", "multiply-adds, G", "activations, MB"]
    parts = []
    for name, network in costs.items():
        rows = [_stage_row(stage) for stage in (*network["stages"], {"name": "total", **network})]
        parts.append((name if len(costs) > 1 else "", render_table(Table(header, rows, total=True))))
    first = next(iter(costs.values()))
    note = (
        f"For one image of {first['height']}x{first['width']} and a classifier of {first['num_classes']} "
        "identities. Activations: outputs of a float32 forward pass."
    )
    return Section("costs", "Costs", render("columns", parts=parts, note=note))


def _stage_row(stage: Mapping[str, Any]) -> list[str]:
    costs = f"{stage['params_M']:.3f}", f"{stage['flops_G']:.4f}", f"{stage['activation_MB']:.1f}"
    return [stage["name"], *costs]


def config_section(runs: Sequence[RunView]) -> Section:
    """Complete configs."""
    configs = [
        (f"{run.command}: {run.name}", yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True))
        for run in runs
    ]
    return Section("config", "Configuration", render("config", configs=configs))


def machine_section(runs: Sequence[RunView]) -> Section:
    """Environments of the runs: in which they differ, and which they share."""
    environments = [_environment(run) for run in runs]
    rows = [[name, *(environment[name] for environment in environments)] for name in environments[0]]
    rows = [row for row in rows if any(row[1:])]
    same = [row[:2] for row in rows if len(set(row[1:])) == 1]
    different = [row for row in rows if len(set(row[1:])) > 1]
    parts = []
    if different:
        table = Table(["", *(run.name for run in runs)], different, text=True)
        parts.append(("", render_table(table)))
    parts.append(("", render_table(Table(["", "all runs" if different else ""], same, text=True))))
    return Section("machine", "Machine", render("columns", parts=parts, note=""))


def _environment(run: RunView) -> dict[str, str]:
    """The run's environment as text; unknown values are empty."""
    environment = run.environment
    threads = f"threads: {environment.get('cpu_threads', '?')}"
    packages = environment.get("packages", {})
    return {
        "started": _show_date(str(environment.get("date", ""))),
        "time": training_time(run) if run.history else "",
        "GPU": ", ".join(environment.get("gpus", [])),
        "CPU": f"{environment['cpu']}, {threads}" if "cpu" in environment else threads,
        "system": str(environment.get("platform", "")),
        "Python": str(environment.get("python", "")),
        "packages": ", ".join(f"{name} {version}" for name, version in packages.items() if version),
        "commit": str(environment.get("commit") or "")[:10],
    }


def _show_date(date: str) -> str:
    """An ISO 8601 time in UTC in a readable form; any other text unchanged."""
    try:
        return f"{datetime.fromisoformat(date):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return date
