"""Results of a table's runs so far, beside the paper's figures."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import log
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.space import search_space
from autoreid_fast.paper.tables import RowSpec, TableNumber, TableSpec
from autoreid_fast.runs.records import MetricsRecord, SearchMetricsRecord, genotype_of
from autoreid_fast.schema import Content, read_json
from autoreid_fast.search.config import SearchConfig
from autoreid_fast.tables.plan import Entry, Task

COSTS = ("params_M", "flops_G")
"""Columns that are not percentages."""
METRIC_LABELS = {
    "rank1": "rank-1",
    "rank5": "rank-5",
    "rank10": "rank-10",
    "params_M": "params M",
    "flops_G": "GFLOPs",
}
SEARCH_STATISTICS = {
    "part_aware_normal": "part_aware of 8, normal",
    "part_aware_reduce": "part_aware of 8, reduce",
    "entropy_normal": "entropy %, normal",
    "entropy_reduce": "entropy %, reduce",
}
"""Labels of the statistics of searches: part_aware modules among a cell's 8 operations, and the entropy of
softmax(alpha) in per cent of its maximum."""


@dataclass(frozen=True)
class Summary:
    """Statistics of one value over the finished seeds."""

    mean: float
    deviation: float | None  # of the sample; None for one seed
    seeds: dict[str, float]  # values by seed


@dataclass(frozen=True)
class RowResults:
    """One row; values are by column, None while no seed is finished."""

    name: str
    runs: bool  # whether the row can be run
    paper: dict[str, float | str | None]
    ours: dict[str, Summary | None]
    search: dict[str, Summary | None] | None  # by the names in SEARCH_STATISTICS; None without a search


@dataclass(frozen=True)
class TableResults:
    """A table; mAP and ranks are in per cent."""

    table: TableNumber
    title: str
    scale: str
    seeds: list[int]
    runs_done: int
    runs: int
    columns: dict[str, str]  # labels by column
    rows: list[RowResults]

    def to_dict(self) -> dict[str, Any]:
        """Contents of ``table.json``."""
        return asdict(self)


def collect_results(
    number: TableNumber, table: TableSpec, rows: Sequence[RowSpec], entries: Sequence[Entry], scale: str
) -> TableResults:
    """Read the results of all finished runs."""
    seeds = sorted({entry.seed for entry in entries})
    metrics = {
        (entry.row, entry.variant, entry.seed): _metrics(entry.task)
        for entry in entries
        if entry.task.result.exists()
    }
    collected = []
    for row in rows:
        ours = {}
        for column in table.columns:
            variant, metric = table.column(column)
            factor = 1 if metric in COSTS else 100
            values = {seed: metrics.get((row.name, variant, seed), {}).get(metric) for seed in seeds}
            ours[column] = _summarize({seed: factor * v for seed, v in values.items() if v is not None})
        paper = dict(zip(table.columns, row.paper, strict=True))
        searches = {e.seed: e.search for e in entries if e.row == row.name and e.search is not None}
        collected.append(RowResults(row.name, row.runs, paper, ours, _summarize_searches(searches)))
    columns = {column: _label(*table.column(column)) for column in table.columns}
    return TableResults(number, table.title, scale, seeds, len(metrics), len(entries), columns, collected)


def _metrics(task: Task) -> dict[str, Any]:
    """Metrics of a finished task; those of `rank` replace those of the training."""
    return {**_read(task.run / "metrics.json", MetricsRecord), **_read(task.result, MetricsRecord)}


def _read(path: Path, kind: type[Content]) -> Content:
    try:
        return read_json(path, kind)
    except AutoReIDError as error:
        raise AutoReIDError(f"{error}; remove it, and this command writes it again") from None


def _label(variant: str, metric: str) -> str:
    return f"{variant} {METRIC_LABELS.get(metric, metric)}".strip()


def _summarize_searches(searches: Mapping[int, Task]) -> dict[str, Summary | None] | None:
    """Statistics of a row's finished searches over the seeds; None for a row without searches."""
    if not searches:
        return None
    statistics = {
        seed: _search_statistics(_read(task.result, SearchMetricsRecord), search_space(task.config.space))
        for seed, task in searches.items()
        if task.result.exists() and isinstance(task.config, SearchConfig)
    }
    return {
        name: _summarize({seed: values[name] for seed, values in statistics.items() if name in values})
        for name in SEARCH_STATISTICS
    }


def _search_statistics(metrics: SearchMetricsRecord, candidates: Sequence[str]) -> dict[str, float]:
    """Statistics of one search; without part_aware if it is not a candidate."""
    statistics: dict[str, float] = {}
    genotype = genotype_of(metrics["genotype"])
    cells = {"normal": genotype.normal, "reduce": genotype.reduce}
    entropies = {"normal": metrics["entropy_normal"], "reduce": metrics["entropy_reduce"]}
    for cell in ("normal", "reduce"):
        operations = [edge.op for node in cells[cell] for edge in node]
        if "part_aware" in candidates:
            statistics[f"part_aware_{cell}"] = operations.count("part_aware")
        statistics[f"entropy_{cell}"] = 100 * entropies[cell] / log(len(candidates))
    return statistics


def _summarize(values: Mapping[int, float]) -> Summary | None:
    """Statistics of values by seed; None if there are none."""
    if not values:
        return None
    deviation = stdev(values.values()) if len(values) > 1 else None
    return Summary(mean(values.values()), deviation, {str(seed): value for seed, value in values.items()})
