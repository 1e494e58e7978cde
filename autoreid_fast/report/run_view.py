"""What a run folder holds, read for a report."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.runs.folder import RunFolder

EVALUATIONS = "evaluations"
"""The folder of a training's run in which each `eval` of it leaves a folder of its own."""


@dataclass(frozen=True)
class RunView:
    """One run, as far as it has come: what it has not left yet is empty or None.

    ``name``: of its folder; ``command``: search, train or eval; ``config``: as recorded, nested;
    ``retrieval``: see `engine.retrieval`.
    """

    name: str
    path: Path
    command: str
    config: dict[str, Any]
    environment: dict[str, Any]
    history: list[dict[str, Any]]
    metrics: dict[str, Any]
    genotype: Genotype | None
    retrieval: dict[str, Any] | None

    @property
    def evaluated(self) -> bool:
        """Whether there is a ranking to speak of."""
        return "mAP" in self.metrics

    @property
    def data(self) -> str:
        """Its data set in a word: the kind, and for a folder of one's own the folder's name."""
        data = self.config.get("data", {})
        kind = str(data.get("kind", "?"))
        return Path(str(data.get("root"))).name if kind == "folder" else kind


def read_run(path: Path) -> RunView:
    """Read a run folder.

    Raises:
        AutoReIDError: the folder holds no run, or a file of it cannot be read.
    """
    run = RunFolder(path)
    config = run.recorded()
    return RunView(
        name=path.resolve().name,
        path=path,
        command=run.command(),
        config=config,
        environment=_json(run.environment, {}),
        history=_json(run.history, []),
        metrics=_json(run.metrics, {}),
        genotype=Genotype.load(run.genotype) if run.genotype.is_file() else None,
        retrieval=_json(run.retrieval, None),
    )


def runs_in(folder: Path) -> list[RunView]:
    """The run in ``folder``, or, where it is a folder of runs, all of these by the time they began.

    Raises:
        AutoReIDError: neither a run nor a folder of runs, or a run that cannot be read.
    """
    if RunFolder(folder).config.is_file():
        return [read_run(folder)]
    inner = sorted(folder.iterdir()) if folder.is_dir() else []
    runs = [read_run(path) for path in inner if path.is_dir() and RunFolder(path).config.is_file()]
    if not runs:
        raise AutoReIDError(f"{folder} holds no run: give the folder that --run named")
    return sorted(runs, key=lambda run: str(run.environment.get("date", "")))


def evaluations_of(run: RunView) -> list[RunView]:
    """What `eval` left of ``run``, by name."""
    folder = run.path / EVALUATIONS
    inner = sorted(folder.iterdir()) if folder.is_dir() else []
    return [read_run(path) for path in inner if RunFolder(path).config.is_file()]


def run_of(evaluation: RunView) -> RunView | None:
    """The training that an `eval` was of; None for any other run."""
    folder = evaluation.path.resolve().parents[1]
    if evaluation.path.resolve().parent.name != EVALUATIONS or not RunFolder(folder).config.is_file():
        return None
    return read_run(folder)


def _json(path: Path, default: Any) -> Any:
    if not path.is_file():
        return default
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise AutoReIDError(f"{path}: cannot be read ({error}); the run's own command writes it") from None
    if default is not None and not isinstance(value, type(default)):
        raise AutoReIDError(f"{path}: not what a run writes there, but a {type(value).__name__}")
    return value
