"""From a table to the runs that fill it: what each runs, where, and after which others."""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NamedTuple

from autoreid_fast.configs import AnyConfig, from_values, load_config
from autoreid_fast.data.config import DataConfig
from autoreid_fast.devices import DeviceName
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.paper.tables import RowSpec, TableSpec
from autoreid_fast.schema import Config
from autoreid_fast.search.config import SearchConfig
from autoreid_fast.tables.scale import SCALES, ScaleName, scaled
from autoreid_fast.training.pretrain import PretrainConfig
from autoreid_fast.training.train import TrainConfig

SEEDS_APART = 10
"""A search's seed is that of its run (1 to 4) plus so much for each seed of the table."""


class Task(NamedTuple):
    """One command to run: ``result`` is the file that it leaves last, ``after`` the results it needs.

    ``config`` is None for `rank`, which re-ranks the features in the run folder ``run``.
    """

    name: str
    command: Literal["search", "pretrain", "train", "rank"]
    run: Path
    result: Path
    config: Config | None
    after: tuple[Path, ...] = ()


class Cell(NamedTuple):
    """The result of one row, variant and seed; ``search`` is what found its network, where a search did."""

    row: str
    variant: str
    seed: int
    task: Task
    search: Task | None = None


class Where(NamedTuple):
    """What a table is run on: ``data`` (root and cache), ``imagenet`` (a tree of classified images),
    ``pretrained`` (weights that are there already, by network)."""

    out: Path
    data: DataConfig
    imagenet: Path | None
    pretrained: Mapping[str, Path]
    device: DeviceName
    scale: ScaleName


def chosen_rows(table: TableSpec, patterns: Sequence[str]) -> tuple[RowSpec, ...]:
    """The rows whose names match any of the shell patterns, whatever their case; without any, all.

    Raises:
        AutoReIDError: a pattern that no row matches, or rows none of which can be run.
    """
    for pattern in patterns:
        if not any(_matches(row, pattern) for row in table.rows):
            names = ", ".join(row.name for row in table.rows)
            raise AutoReIDError(f"rows {pattern!r}: no such row; there are {names}")
    rows = tuple(row for row in table.rows if not patterns or any(_matches(row, p) for p in patterns))
    if not any(row.runs for row in rows):
        raise AutoReIDError(f"rows {', '.join(patterns)}: the paper only quotes these; nothing to run")
    return rows


def _matches(row: RowSpec, pattern: str) -> bool:
    return fnmatchcase(row.name.lower(), pattern.lower())


def plan(
    table: TableSpec, rows: Sequence[RowSpec], seeds: Sequence[int], where: Where
) -> tuple[list[Cell], list[Task]]:
    """A cell for every runnable row, variant and seed; and all that must be run for them, once, in order.

    Raises:
        AutoReIDError: pre-trained weights are needed and there is neither ImageNet nor a file.
    """
    planner = _Planner(table, where)
    cells: list[Cell] = []
    tasks: dict[Path, Task] = {}
    for seed in seeds:
        for row in rows:
            for variant in table.variants if row.runs else ():
                needed = planner.tasks(row, variant, seed)
                tasks |= {task.result: task for task in needed}
                search = next((task for task in needed if task.command == "search"), None)
                cells.append(Cell(row.name, variant, seed, needed[-1], search))
    return cells, list(tasks.values())


class _Planner:
    def __init__(self, table: TableSpec, where: Where) -> None:
        self.table = table
        self.where = where

    def tasks(self, row: RowSpec, variant: str, seed: int) -> list[Task]:
        """What a row needs, in order; the last is its own."""
        if row.rerank_of is not None:
            before = self.tasks(self._row(row.rerank_of), variant, seed)
            trained = before[-1]
            result = trained.run / "reranked.json"
            return [
                *before,
                Task(_name(row, variant, seed), "rank", trained.run, result, None, (trained.result,)),
            ]
        needed = []
        values = _merged(_merged(row.train or {}, self.table.variants[variant]), {"seed": seed})
        if row.search is not None:
            needed.append(self._search(row.search, seed))
            values["network"] = str(needed[-1].run)
        if self.table.pretrain is not None:
            network = values["network"]
            values["pretrained"] = self.where.pretrained.get(network)
            if values["pretrained"] is None:
                needed.append(self._pretrain(network))
                values["pretrained"] = needed[-1].run
        run = self.where.out / "rows" / _slug(f"{row.name} {variant}") / f"seed{seed}"
        config = self._config(TrainConfig, self.table.train, "train", values)
        after = tuple(task.result for task in needed)
        return [*needed, Task(_name(row, variant, seed), "train", run, run / "metrics.json", config, after)]

    def _row(self, name: str) -> RowSpec:
        return next(row for row in self.table.rows if row.name == name)

    def _search(self, name: str, seed: int) -> Task:
        run = self.where.out / "searches" / f"{name}-seed{seed}"
        values = dict(self.table.searches[name])
        values["seed"] = values.get("seed", 0) + SEEDS_APART * seed
        config = self._config(SearchConfig, str(self.table.search), "search", values)
        return Task(f"search {name}, seed {seed}", "search", run, run / "metrics.json", config)

    def _pretrain(self, network: str) -> Task:
        if self.where.imagenet is None:
            raise AutoReIDError(
                f"this table starts from ImageNet weights of {network}: give --imagenet (the folder with "
                f"train/ and val/) to pre-train it, or --pretrained {network} FILE"
            )
        run = self.where.out / "pretrained" / network
        values = {"network": network, "root": self.where.imagenet}
        config = self._config(PretrainConfig, str(self.table.pretrain), "pretrain", values)
        return Task(f"pretrain {network}", "pretrain", run, run / "metrics.json", config)

    def _config(
        self, config_class: type[AnyConfig], preset: str, command: str, values: Mapping[str, Any]
    ) -> AnyConfig:
        where = self.where
        base = load_config(config_class, preset, command).model_dump()
        if "data" in base:
            own = {"root": where.data.root, "cache_dir": where.data.cache_dir}
            base = _merged(base, {"data": own})
        config = from_values(config_class, _merged(base, {**values, "device": where.device}), preset)
        return config if where.scale == "full" else scaled(config, where.data, SCALES[where.scale])


def _merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with ``changes`` laid over them, dictionary by dictionary."""
    merged = dict(values)
    for name, change in changes.items():
        inner = merged.get(name)
        merged[name] = (
            _merged(inner, change) if isinstance(inner, dict) and isinstance(change, dict) else change
        )
    return merged


def _name(row: RowSpec, variant: str, seed: int) -> str:
    return ", ".join(part for part in (row.name, variant, f"seed {seed}") if part)


def _slug(name: str) -> str:
    """A folder's name: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
