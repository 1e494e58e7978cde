"""The paper's figures for a training, from the rows of its tables."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from autoreid_fast.models.registry import BACKBONES
from autoreid_fast.paper.tables import TableNumber, load_table

TABLE_1_ROWS = {
    "resnet18": "ResNet-18",
    "resnet34": "ResNet-34",
    "resnet50": "ResNet-50",
    "darts_v2": "DARTS",
    "gdas_v1": "GDAS",
    "autoreid_baseline": "Baseline (run 1)",
    "autoreid_base_reid": "Baseline + ReID Search Space (run 1)",
    "autoreid_retrieval": "Retrieval + ReID Search Space (run 1)",
}
"""Rows of networks trained from scratch on Market-1501."""
BEST_SEARCH = "Baseline + ReID Search Space (run 3)"
"""The row of Table 1 that the paper calls Auto-ReID."""
TABLE_4_PCB_ROWS = {
    "darts_v2": "DARTS+PCB",
    "gdas_v1": "GDAS+PCB",
    "autoreid_baseline": "Baseline+PCB",
}
"""Rows of networks with a PCB tail, trained from scratch on Market-1501."""


class Published(NamedTuple):
    """A row of one of the paper's tables: retrieval in per cent, costs in millions and 10^9."""

    label: str
    figures: Mapping[str, float]  # by the names in metrics.json


def published(config: Mapping[str, Any]) -> Published | None:
    """The paper's row for a training's config: the network's own, or else Auto-ReID's on that data set.

    None if the paper has no such row, for instance on synthetic data.
    """
    data = config.get("data", {})
    kind, network = data.get("kind"), str(config.get("network"))
    pretrained = config.get("pretrained") is not None
    from_scratch_on_market = kind == "market1501" and not pretrained
    tail = config.get("tail", "embedding")
    if tail != "embedding":
        has_row = from_scratch_on_market and tail == "pcb" and network in TABLE_4_PCB_ROWS
        return _row(4, TABLE_4_PCB_ROWS[network]) if has_row else None
    if from_scratch_on_market and network in TABLE_1_ROWS:
        return _row(1, TABLE_1_ROWS[network])
    if network in BACKBONES and not network.startswith("autoreid"):
        return None
    match kind:
        case "market1501":
            return _row(3, "Auto-ReID") if pretrained else _row(1, BEST_SEARCH)
        case "cuhk03":
            return _row(5, "Auto-ReID", variant=str(data.get("boxes")))
        case "msmt17":
            return _row(6, "Auto-ReID")
    return None


def _row(number: TableNumber, name: str, variant: str = "") -> Published:
    table = load_table(number)
    figures = {}
    for column, figure in zip(table.columns, table.row(name).paper, strict=True):
        column_variant, metric = table.column(column)
        if column_variant == variant and isinstance(figure, float):
            figures[metric] = figure
    return Published(f"{name}, Table {number}", figures)
