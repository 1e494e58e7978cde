"""Plan the runs of a table: config, folder and prerequisites of each."""

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
from autoreid_fast.training.config import PretrainConfig, TrainConfig

SEARCH_SEED_STRIDE = 10
"""A search's seed is the seed of its spec (1 to 4), plus this for each seed of the table."""


class Task(NamedTuple):
    """One command to run."""

    name: str  # for the log
    command: Literal["search", "pretrain", "train", "rank"]
    run: Path  # run folder; of `rank`, the training whose features are re-ranked
    result: Path  # file that is written last
    config: Config | None  # None for `rank`
    after: tuple[Path, ...] = ()  # results that must exist before


class Entry(NamedTuple):
    """The result of one row, variant and seed."""

    row: str
    variant: str
    seed: int
    task: Task
    search: Task | None = None  # the search that finds the row's network, if any


class TableSetup(NamedTuple):
    """Where and at what scale a table is run."""

    out: Path
    data: DataConfig  # root and cache folder
    imagenet: Path | None  # folder of classified images to pre-train on
    pretrained: Mapping[str, Path]  # existing weights, by network
    device: DeviceName
    scale: ScaleName


def choose_rows(table: TableSpec, patterns: Sequence[str]) -> tuple[RowSpec, ...]:
    """Rows whose names match any of the shell patterns, ignoring case; all rows if there are no patterns.

    Raises:
        AutoReIDError: a pattern matches no row, or none of the rows can be run.
    """
    for pattern in patterns:
        if not any(_matches(row, pattern) for row in table.rows):
            names = ", ".join(row.name for row in table.rows)
            raise AutoReIDError(f"rows {pattern!r}: no such row; expected one of {names}")
    rows = tuple(
        row for row in table.rows if not patterns or any(_matches(row, pattern) for pattern in patterns)
    )
    if not any(row.runs for row in rows):
        raise AutoReIDError(
            f"rows {', '.join(patterns)}: nothing to run; the paper quotes these rows from other papers"
        )
    return rows


def _matches(row: RowSpec, pattern: str) -> bool:
    return fnmatchcase(row.name.lower(), pattern.lower())


def plan(
    table: TableSpec, rows: Sequence[RowSpec], seeds: Sequence[int], setup: TableSetup
) -> tuple[list[Entry], list[Task]]:
    """Plan all runs of ``rows``.

    Returns:
        One entry per runnable row, variant and seed; and every task that they need, once, each after its
        prerequisites.

    Raises:
        AutoReIDError: a row needs pre-trained weights, and neither ImageNet nor weights are given.
    """
    planner = _Planner(table, setup)
    entries: list[Entry] = []
    tasks: dict[Path, Task] = {}
    for seed in seeds:
        for row in rows:
            for variant in table.variants if row.runs else ():
                needed = planner.tasks_of(row, variant, seed)
                tasks |= {task.result: task for task in needed}
                search = next((task for task in needed if task.command == "search"), None)
                entries.append(Entry(row.name, variant, seed, needed[-1], search))
    return entries, list(tasks.values())


class _Planner:
    def __init__(self, table: TableSpec, setup: TableSetup) -> None:
        self.table = table
        self.setup = setup

    def tasks_of(self, row: RowSpec, variant: str, seed: int) -> list[Task]:
        """Tasks of a row, each after its prerequisites; the last one gives the row's result."""
        if row.rerank_of is None:
            return self._training(row, variant, seed)
        tasks = self.tasks_of(self.table.row(row.rerank_of), variant, seed)
        trained = tasks[-1]
        result = trained.run / "reranked.json"
        name = _task_name(row, variant, seed)
        return [*tasks, Task(name, "rank", trained.run, result, None, (trained.result,))]

    def _training(self, row: RowSpec, variant: str, seed: int) -> list[Task]:
        prerequisites = []
        values = _merge(_merge(row.train or {}, self.table.variants[variant]), {"seed": seed})
        if row.search is not None:
            prerequisites.append(self._search(row.search, seed))
            values["network"] = str(prerequisites[-1].run)
        if self.table.pretrain is not None:
            network = values["network"]
            values["pretrained"] = self.setup.pretrained.get(network)
            if values["pretrained"] is None:
                prerequisites.append(self._pretraining(network))
                values["pretrained"] = prerequisites[-1].run
        run = self.setup.out / "rows" / _folder_name(f"{row.name} {variant}") / f"seed{seed}"
        config = self._config(TrainConfig, self.table.train, "train", values)
        after = tuple(task.result for task in prerequisites)
        name = _task_name(row, variant, seed)
        return [*prerequisites, Task(name, "train", run, run / "metrics.json", config, after)]

    def _search(self, name: str, seed: int) -> Task:
        run = self.setup.out / "searches" / f"{name}-seed{seed}"
        values = dict(self.table.searches[name])
        values["seed"] = values.get("seed", 0) + SEARCH_SEED_STRIDE * seed
        config = self._config(SearchConfig, str(self.table.search), "search", values)
        return Task(f"search {name}, seed {seed}", "search", run, run / "metrics.json", config)

    def _pretraining(self, network: str) -> Task:
        if self.setup.imagenet is None:
            raise AutoReIDError(
                f"this table starts from ImageNet weights of {network}: give --imagenet (the folder with "
                f"train/ and val/) to pre-train it, or --pretrained {network} FILE"
            )
        run = self.setup.out / "pretrained" / network
        values = {"network": network, "root": self.setup.imagenet}
        config = self._config(PretrainConfig, str(self.table.pretrain), "pretrain", values)
        return Task(f"pretrain {network}", "pretrain", run, run / "metrics.json", config)

    def _config(
        self, config_class: type[AnyConfig], preset: str, command: str, changes: Mapping[str, Any]
    ) -> AnyConfig:
        """A preset on the table's data and device, with ``changes``, at the table's scale."""
        setup = self.setup
        values = load_config(config_class, preset, command).model_dump()
        if "data" in values:
            folders = {"root": setup.data.root, "cache_dir": setup.data.cache_dir}
            values = _merge(values, {"data": folders})
        config = from_values(config_class, _merge(values, {**changes, "device": setup.device}), preset)
        return config if setup.scale == "full" else scaled(config, setup.data, SCALES[setup.scale])


def _merge(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` overridden by ``changes``; nested dictionaries are merged, not replaced."""
    merged = dict(values)
    for name, change in changes.items():
        present = merged.get(name)
        if isinstance(present, dict) and isinstance(change, dict):
            merged[name] = _merge(present, change)
        else:
            merged[name] = change
    return merged


def _task_name(row: RowSpec, variant: str, seed: int) -> str:
    return ", ".join(part for part in (row.name, variant, f"seed {seed}") if part)


def _folder_name(name: str) -> str:
    """Lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
