"""Results of GPU sessions, one file per GPU: `python -m autoreid_fast.benchmarks.harness.gpu.results IN OUT`

IN is a folder with the files of the runs (``first.json``, ``second.json``). They are merged into
``benchmarks/results/<gpu>.json`` and replace earlier results of the same rows and items.
"""

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import write_json
from autoreid_fast.schema import Config

from ..results import Environment, Results, Row
from .items import RunFile
from .table import lines

FOLDER = Path(__file__).resolve().parents[2] / "results"
RUNS = ("first", "second")
COUNTS = ("passed", "failed", "skipped")


class Tests(Config):
    """Counts of the GPU tests; a skipped test did not run, so it counts as a failure."""

    environment: Environment
    passed: int
    failed: int
    skipped: int

    @property
    def held(self) -> bool:
        """Whether all ran and passed."""
        return self.passed > 0 and self.failed == self.skipped == 0


class Part(Config):
    """Figures of an item without rows."""

    environment: Environment
    figures: dict[str, Any]


class Session(Config):
    """All results of one GPU: runs with their environments; a row stays in the last run that measured it."""

    runs: tuple[Results, ...] = ()
    tests: Tests | None = None
    parts: dict[str, Part] = Field(default={}, description="the items without rows, by name")

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of all runs."""
        return tuple(row for run in self.runs for row in run.rows)


def merged(old: Session, new: Session) -> Session:
    """``old`` with the rows and parts of ``new`` in place of its own; runs without rows are dropped."""
    fresh = {_key(row) for row in new.rows}
    kept = []
    for run in old.runs:
        rows = tuple(row for row in run.rows if _key(row) not in fresh)
        if rows:
            kept.append(Results(environment=run.environment, rows=rows))
    return Session(
        runs=(*kept, *new.runs),
        tests=new.tests or old.tests,
        parts={**old.parts, **new.parts},
    )


def _key(row: Row) -> tuple[str, tuple[tuple[str, int], ...], str, str, str | None]:
    return row.case, tuple(sorted(row.sizes.items())), row.dtype, row.device, row.large


def read(results: Path) -> Session:
    """Read the files of the runs: their rows, the counts of the tests, and the figures of all other items.

    Raises:
        AutoReIDError: a file that cannot be read.
    """
    session = Session()
    for file in [results / f"{run}.json" for run in RUNS if (results / f"{run}.json").is_file()]:
        try:
            session = merged(session, _session_of(RunFile.model_validate_json(file.read_text())))
        except ValueError as error:
            raise AutoReIDError(
                f"{file} cannot be read ({str(error).splitlines()[0]}): remove it or make its run again"
            ) from None
    return session


def _session_of(file: RunFile) -> Session:
    done = {outcome.name: outcome.figures for outcome in file.outcomes if outcome.status == "done"}
    rows = tuple(Row.model_validate(row) for figures in done.values() for row in figures.get("rows", ()))
    counts = done.get("tests", {})
    tests = None
    if counts.get("ended"):
        tests = Tests(environment=file.environment, **{name: counts[name] for name in COUNTS})
    parts = {name: figures for name, figures in done.items() if "rows" not in figures}
    return Session(
        runs=(Results(environment=file.environment, rows=rows),) if rows else (),
        tests=tests,
        parts={name: Part(environment=file.environment, figures=figures) for name, figures in parts.items()},
    )


def gpu_of(session: Session) -> str | None:
    """Name of the session's GPU as a file name: ``nvidia-h200``; None if no GPU was used.

    Raises:
        AutoReIDError: results of several GPUs.
    """
    environments: Iterable[Environment] = (
        *(run.environment for run in session.runs),
        *([session.tests.environment] if session.tests else []),
        *(part.environment for part in session.parts.values()),
    )
    names = {one.gpu for one in environments if one.gpu is not None}
    if len(names) > 1:
        raise AutoReIDError(
            f"results of {len(names)} GPUs ({', '.join(sorted(names))}); expected one: use a folder per GPU"
        )
    return names.pop().lower().replace(" ", "-") if names else None


def main(results: Path, out: Path, folder: Path = FOLDER) -> int:
    """Merge the files in ``results`` into the GPU's file, copy it to ``out`` and print it.

    Without new results, print those of ``folder``.

    Returns:
        0, or 1 if a test failed or a row has no parity.

    Raises:
        AutoReIDError: results that cannot be read, results of several GPUs, or nothing to print.
    """
    session = read(results) if results.is_dir() else Session()
    name = gpu_of(session)
    if name is None:
        known = sorted(folder.glob("nvidia-*.json"))
        if not known:
            raise AutoReIDError(
                f"{results}: no results of a GPU: run benchmarks/gpu_run.sh on a machine with one"
            )
        return max(show(Session.model_validate_json(path.read_text()), path) for path in known)
    path = folder / f"{name}.json"
    if path.is_file():
        session = merged(Session.model_validate_json(path.read_text()), session)
    write_json(path, session.model_dump(mode="json"))
    if out.resolve() != folder.resolve():
        shutil.copy(path, out)
    return show(session, path)


def show(session: Session, path: Path) -> int:
    """Print a session. Returns 1 if a test failed or a row has no parity, else 0."""
    figures = {name: part.figures for name, part in session.parts.items()}
    print("\n".join(lines(session.rows, figures)))
    if session.tests is not None:
        counts = session.tests
        print(f"GPU tests: {counts.passed} passed, {counts.failed} failed, {counts.skipped} skipped")
    print(f"all results: {path}")
    held = session.tests is None or session.tests.held
    return 0 if held and all(row.passed for row in session.rows) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
    except AutoReIDError as error:
        sys.exit(f"gpu.results: {error}")
