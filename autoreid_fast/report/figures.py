"""The headline figures of runs, beside each other, the paper's, the same network untrained, and chance."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from markupsafe import Markup

from autoreid_fast.models.registry import build_backbone
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.progress import duration
from autoreid_fast.report.page import Table, render, table
from autoreid_fast.report.paper import Published, published
from autoreid_fast.report.run_view import RunView

SHARES = (
    ("rank1", "rank-1, %"),
    ("rank5", "rank-5, %"),
    ("rank10", "rank-10, %"),
    ("mAP", "mAP, %"),
    ("mAP_trapezoid", "mAP (trapezoid), %"),
    ("mINP", "mINP, %"),
)
TABLE_1_IDENTITIES = 751
"""Classes of the linear layer that the paper's counts of parameters seem to have in them."""

Column = Mapping[str, str]
"""Figures as text by their names in metrics.json."""


def ranking(runs: Sequence[RunView], beside: RunView | None) -> Markup:
    """Tiles of the first of ``runs``, and a table of all, of ``beside``, of the paper, and of chance.

    Every run must be `evaluated`.
    """
    main = runs[0]
    columns: dict[str, Column] = {run.name: _figures(run.metrics) for run in runs}
    if beside is not None:
        name = beside.name if beside.data == main.data else f"{beside.name} on {beside.data}"
        columns[f"beside: {name}" if name in columns else name] = _figures(beside.metrics)
    paper = published(main.config) if main.command == "train" else None
    if paper is not None:
        columns[f"paper: {paper.where}"] = _published(paper)
    if "untrained" in main.metrics:
        columns[f"{main.name}, untrained" if len(runs) > 1 else "untrained"] = _figures(
            main.metrics["untrained"]
        )
    columns["chance"] = _figures(main.metrics.get("chance", {}))
    other = list(columns)[1]
    tiles = [
        _tile("rank-1", columns, "rank1", "%", other),
        _tile("mAP", columns, "mAP", "%", other),
        _tile("mINP", columns, "mINP", "%", other),
        _tile("parameters", columns, "params_M", "M", other),
        _tile("multiply-adds", columns, "flops_G", "G", other),
    ]
    names = (*SHARES, ("params_M", "parameters, M"), ("flops_G", "multiply-adds, G"), ("queries", "queries"))
    rows = [
        [label, *(column.get(name, "") for column in columns.values())]
        for name, label in names
        if any(name in column for column in columns.values())
    ]
    header = ["", *columns]
    return render("tiles", tiles=[tile for tile in tiles if tile]) + table(Table(header, rows, strong=1))


def found(run: RunView, genotype: Genotype) -> Markup:
    """Tiles of a search: how long it took, how sure alpha is, and what the genotype costs."""
    cells = (genotype.normal, genotype.reduce)
    part_aware = sum(edge.op == "part_aware" for cell in cells for node in cell for edge in node)
    with torch.device("meta"):
        backbone = build_backbone(genotype)
        network = torch.nn.Sequential(backbone, torch.nn.Linear(backbone.feature_dim, TABLE_1_IDENTITIES))
    parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    last = run.history[-1] if run.history else {}
    epochs = f"{len(run.history)} of {run.config.get('epochs', '?')}"
    tiles = [
        {"label": "epochs", "value": epochs, "unit": "", "beside": time_taken(run)},
        {
            "label": "entropy of alpha",
            "value": f"{last.get('entropy_normal', 0):.2f}",
            "unit": f"/ {last.get('entropy_reduce', 0):.2f}",
            "beside": "nats, normal / reduction cell",
        },
        {"label": "part_aware", "value": str(part_aware), "unit": "of 16", "beside": "operations kept"},
        {
            "label": "parameters at C = 64",
            "value": f"{parameters:.1f}",
            "unit": "M",
            "beside": "paper: 8.6 to 14.8",
        },
    ]
    return render("tiles", tiles=tiles)


def time_taken(run: RunView) -> str:
    """How long the epochs took, as people say it."""
    return duration(sum(record.get("seconds", 0) for record in run.history))


def share(metrics: Mapping[str, Any], name: str) -> str:
    """A share of ``metrics`` in per cent, or nothing."""
    return f"{100 * metrics[name]:.1f}" if name in metrics else ""


def _figures(metrics: Mapping[str, Any]) -> Column:
    figures = {name: share(metrics, name) for name, _ in SHARES if name in metrics}
    for name in ("params_M", "flops_G"):
        if name in metrics:
            figures[name] = f"{metrics[name]:.3g}"
    if "num_valid" in metrics:
        figures["queries"] = f"{metrics['num_valid']:,} of {metrics['num_query']:,}"
    return figures


def _published(paper: Published) -> Column:
    values = {name: getattr(paper, name) for name in Published._fields if name != "where"}
    return {name: str(value) for name, value in values.items() if value is not None}


def _tile(
    label: str, columns: Mapping[str, Column], name: str, unit: str, other: str
) -> dict[str, str] | None:
    main = next(iter(columns.values()))
    if name not in main:
        return None
    beside = f"{other} {columns[other][name]}" if name in columns[other] else ""
    return {"label": label, "value": main[name], "unit": unit, "beside": beside}
