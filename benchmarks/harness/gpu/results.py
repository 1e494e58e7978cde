"""Results of GPU sessions, one file per GPU: `python -m autoreid_fast.benchmarks.harness.gpu.results IN OUT`

IN is a folder with the files of the parts of ``gpu.sh``: ``bench-*.json`` (`results.Results`), ``tests.xml``
(pytest's JUnit file), ``sanitizers.json``, ``profile-*.json``, ``search.json``, ``train.json``. They are
merged into ``benchmarks/results/<gpu>.json`` and replace earlier results of the same rows and parts.
"""

import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pydantic import Field

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import write_json
from autoreid_fast.schema import Config

from ..results import Environment, Results, Row, environment
from .table import lines

FOLDER = Path(__file__).resolve().parents[2] / "results"


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
    """The file of another part of a session, unchanged."""

    environment: Environment
    figures: dict[str, Any]


class Session(Config):
    """All results of one GPU: runs with their environments; a row stays in the last run that measured it."""

    runs: tuple[Results, ...] = ()
    tests: Tests | None = None
    parts: dict[str, Part] = Field(
        default={}, description="sanitizers, profile-float32, profile-bfloat16, search and train"
    )

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
    """Read the files of a session.

    Raises:
        AutoReIDError: a file that cannot be read.
    """
    here = environment(set())
    runs, parts, tests = [], {}, None
    for file in sorted(results.iterdir()):
        try:
            if file.name == "tests.xml":
                tests = tests_in(file, here)
            elif file.name.startswith("bench-"):
                run = Results.model_validate_json(file.read_text())
                runs += [run] if run.rows else []
            else:
                parts[file.stem] = Part(environment=here, figures=json.loads(file.read_text()))
        except (ValueError, ElementTree.ParseError) as error:
            raise AutoReIDError(
                f"{file} cannot be read ({str(error).splitlines()[0]}): remove it or run its part again"
            ) from None
    return Session(runs=tuple(runs), tests=tests, parts=parts)


def tests_in(file: Path, machine: Environment) -> Tests:
    """Counts of a JUnit file."""
    cases = list(ElementTree.parse(file).iter("testcase"))
    kinds = [{child.tag for child in case} for case in cases]
    failed = sum(bool(kind & {"failure", "error"}) for kind in kinds)
    skipped = sum("skipped" in kind for kind in kinds)
    return Tests(environment=machine, passed=len(cases) - failed - skipped, failed=failed, skipped=skipped)


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
                f"{results}: no results of a GPU: run benchmarks/gpu.sh on a machine with one"
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
    print("\n".join(lines(session.rows)))
    if session.tests is not None:
        counts = session.tests
        print(f"GPU tests: {counts.passed} passed, {counts.failed} failed, {counts.skipped} skipped")
    if "sanitizers" in session.parts:
        status = session.parts["sanitizers"].figures.get("exit_status")
        print(f"compute-sanitizer: {'no errors' if status == 0 else f'ended with {status}'}")
    for part in ("search", "train"):
        if part in session.parts:
            shown = {key: value for key, value in session.parts[part].figures.items() if key != "genotype"}
            print(f"{part}: {json.dumps(shown)[:300]}")
    print(f"all results: {path}")
    held = session.tests is None or session.tests.held
    return 0 if held and all(row.passed for row in session.rows) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
    except AutoReIDError as error:
        sys.exit(f"gpu.results: {error}")
