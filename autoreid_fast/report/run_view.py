"""Read run folders for reports."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.runs.records import (
    ConfigRecord,
    EnvironmentRecord,
    EpochRecord,
    MetricsRecord,
    RetrievalRecord,
    read_if_possible,
    recorded_genotype,
)
from autoreid_fast.schema import check

logger = logging.getLogger("autoreid_fast")

EVALUATIONS = "evaluations"
"""Folder in a training's run; each `eval` of the run writes a folder of its own into it."""


@dataclass(frozen=True)
class RunView:
    """Contents of a run folder, finished or not; missing files are empty or None."""

    name: str  # of the folder
    path: Path
    command: str  # search, train, eval, ...
    config: dict[str, Any]  # as recorded, nested
    environment: dict[str, Any]
    history: list[dict[str, Any]]  # one record per epoch
    metrics: dict[str, Any]
    genotype: Genotype | None
    retrieval: dict[str, Any] | None  # see `evaluation.retrieval`

    @property
    def evaluated(self) -> bool:
        """Whether the run has retrieval metrics."""
        return "mAP" in self.metrics

    @property
    def data(self) -> str:
        """Short name of the data set: its kind, or the folder's name for kind `folder`."""
        data = self.config.get("data", {})
        kind = str(data.get("kind", "?"))
        return Path(str(data.get("root"))).name if kind == "folder" else kind


def read_run(path: Path) -> RunView:
    """Read a run folder, and import the plugins that it was started with.

    A file other than ``config.yaml`` that cannot be read is left out, with a warning.

    Raises:
        AutoReIDError: the folder holds no run, or its ``config.yaml`` cannot be read.
    """
    run = RunFolder(path)
    command = run.command()
    config = run.recorded(command)  # plugins may have registered the genotype's operations
    metrics = read_if_possible(run.metrics, MetricsRecord, {})
    return RunView(
        name=path.resolve().name,
        path=path,
        command=command,
        config=dict(check(config, ConfigRecord, str(run.config))),
        environment=read_if_possible(run.environment, EnvironmentRecord, {}),
        history=read_if_possible(run.history, list[EpochRecord], []),
        metrics=metrics,
        genotype=_genotype(run.genotype, metrics),
        retrieval=read_if_possible(run.retrieval, RetrievalRecord, None),
    )


def read_runs(folder: Path) -> list[RunView]:
    """Read the run in ``folder``, or all runs of a folder of runs in the order of their start.

    Raises:
        AutoReIDError: the folder holds no run, or one that cannot be read.
    """
    if RunFolder(folder).config.exists():
        return [read_run(folder)]
    runs = _runs_below(folder)
    if not runs:
        raise AutoReIDError(f"{folder} holds no run: give the folder that --run named")
    return sorted(runs, key=lambda run: str(run.environment.get("date", "")))


def evaluations_of(run: RunView) -> list[RunView]:
    """Read the folders that `eval` wrote for ``run``, sorted by name."""
    return _runs_below(run.path / EVALUATIONS)


def evaluated_run(evaluation: RunView) -> RunView | None:
    """The training that an `eval` evaluated; None if ``evaluation`` is any other run."""
    path = evaluation.path.resolve()
    folder = path.parents[1]
    if path.parent.name != EVALUATIONS or not RunFolder(folder).config.is_file():
        return None
    return next(iter(_readable([folder])), None)


def _runs_below(folder: Path) -> list[RunView]:
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return _readable([path for path in paths if RunFolder(path).config.is_file()])


def _readable(folders: Sequence[Path]) -> list[RunView]:
    """Read the runs of ``folders``; one that cannot be read is left out, with a warning."""
    runs = []
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except AutoReIDError as error:
            logger.warning("%s; the run is left out", error)
    return runs


def _genotype(path: Path, metrics: dict[str, Any]) -> Genotype | None:
    if not path.exists():
        return None
    try:
        return recorded_genotype(path, metrics)
    except AutoReIDError as error:
        logger.warning("%s; left out", error)
        return None
