"""kill -9 at random moments: resumed runs end with the same bits and leave no files behind."""

import json
import math
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from autoreid_fast.cli import main

Alike = Callable[[Path, Path], bool]
Inject = Callable[..., None]
KILLS, KILLS_LONG = 2, 20


def kill_after(context: ForkServerContext, line: list[str], seconds: float) -> bool:
    """Run ``line`` and SIGKILL it after ``seconds``; False if it had ended by then."""
    process = context.Process(target=main, args=(line,))
    process.start()
    process.join(None if seconds == math.inf else seconds)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("command", ["search", "train"])
def test_runs(
    command: str,
    forks: ForkServerContext,
    lines: dict[str, list[str]],
    undisturbed: dict[str, Path],
    same_end: Alike,
    tmp_path: Path,
    long: bool,
    inject: Inject,
    note: Callable[[str], None],
) -> None:
    moments = random.Random(0)
    # timed in a new process, like those that are killed: its start takes longer than in this one
    begin = time.perf_counter()
    assert not kill_after(forks, [*lines[command], "--run", str(tmp_path / "timed")], math.inf)
    whole = time.perf_counter() - begin
    run, killed = tmp_path / "run", Counter[str]()
    while killed.total() < (KILLS_LONG if long else KILLS):
        begun = (run / "config.yaml").exists()
        line = [command, "--resume", "--run", str(run)] if begun else [*lines[command], "--run", str(run)]
        if kill_after(forks, line, moments.uniform(0.1, 0.7) * whole):
            inject(f"kill -9 during {command}")
            killed[moment_of(run)] += 1
        else:  # it has ended: check it, and start another
            assert same_end(run, undisturbed[command])
            shutil.rmtree(run)
    begun = (run / "config.yaml").exists()
    line = [command, "--resume"] if begun else lines[command]
    # with a report, as the killed runs: it removes their partial files
    assert not kill_after(forks, [*line, "--run", str(run)], math.inf)
    assert same_end(run, undisturbed[command])
    note(f"kill -9 during {command}: " + ", ".join(f"{n} {moment}" for moment, n in sorted(killed.items())))


def moment_of(run: Path) -> str:
    """Describe when the process of a run folder was killed."""
    if not (run / "config.yaml").exists():
        return "before it began"
    history = run / "history.json"
    epochs = len(json.loads(history.read_text())) if history.exists() else 0
    return f"after {epochs} epochs" + (" in a write" if list(run.rglob("*.tmp")) else "")


def test_cache_building(
    forks: ForkServerContext,
    people: Path,
    data: list[str],
    tmp_path: Path,
    long: bool,
    inject: Inject,
    note: Callable[[str], None],
) -> None:
    options = [part.replace("--data.", "--") for part in data if part not in ("--device", "cpu")]
    options[options.index("--height") + 1] = "1536"  # so that building takes longer than starting
    folder = options.index("--cache-dir") + 1
    options[folder] = str(tmp_path / "whole")
    begin = time.perf_counter()
    assert main(["data", "cache", *options]) == 0
    seconds = time.perf_counter() - begin
    moments = random.Random(1)

    def built() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in Path(options[folder]).iterdir()}

    whole = built()
    options[folder] = str(tmp_path / "killed")
    killed = halves = 0
    while killed < (KILLS_LONG if long else KILLS):
        if kill_after(forks, ["data", "cache", *options], moments.uniform(0.1, 1) * seconds):
            killed += 1
            inject("kill -9 during cache building")
            halves += bool(list(tmp_path.rglob("killed/*.tmp")))
        else:  # it was built earlier
            assert built() == whole
            shutil.rmtree(tmp_path / "killed")
    assert main(["data", "cache", *options]) == 0
    assert built() == whole
    note(f"kill -9 during cache building: {halves} of {killed} left half a file behind")
