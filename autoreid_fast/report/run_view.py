"""Read run folders for reports."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.runs.folder import RunFolder

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

    Raises:
        AutoReIDError: the folder holds no run, or one of its files cannot be read.
    """
    run = RunFolder(path)
    command = run.command()
    return RunView(
        name=path.resolve().name,
        path=path,
        command=command,
        config=run.recorded(command),  # plugins may have registered the genotype's operations
        environment=_read_json(run.environment, {}),
        history=_read_json(run.history, []),
        metrics=_read_json(run.metrics, {}),
        genotype=Genotype.load(run.genotype) if run.genotype.is_file() else None,
        retrieval=_read_json(run.retrieval, None),
    )


def read_runs(folder: Path) -> list[RunView]:
    """Read the run in ``folder``, or all runs of a folder of runs in the order of their start.

    Raises:
        AutoReIDError: the folder holds no run, or one that cannot be read.
    """
    if RunFolder(folder).config.is_file():
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
    return read_run(folder)


def _runs_below(folder: Path) -> list[RunView]:
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [read_run(path) for path in paths if RunFolder(path).config.is_file()]


def _read_json(path: Path, default: Any) -> Any:
    if not path.is_file():
        return default
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AutoReIDError(f"{path}: cannot be read ({error}); run the command again to write it") from None
    if default is not None and not isinstance(value, type(default)):
        raise AutoReIDError(
            f"{path}: holds a {type(value).__name__}, expected a {type(default).__name__}; run the command "
            "again to write it"
        )
    return value
