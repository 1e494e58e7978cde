"""kill -9 at random moments: what goes on afterwards ends with the same bits, and leaves nothing behind."""

import multiprocessing
import random
import shutil
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from autoreid_fast.cli import main

Alike = Callable[[Path, Path], bool]
Tally = Callable[[str, int, int], None]
KILLS, KILLS_LONG = 2, 20


@pytest.fixture(scope="module")
def forks() -> Iterator[ForkServerContext]:
    """A server that has imported everything, so that a process to kill begins in no time."""
    context = multiprocessing.get_context("forkserver")
    commands = [f"autoreid_fast.commands.{name}" for name in ("search", "train", "data")]
    context.set_forkserver_preload(["torch.utils.tensorboard", *commands])
    yield context


def kill_after(context: ForkServerContext, line: list[str], seconds: float) -> bool:
    """Run ``line`` and SIGKILL it; False where it had ended by then."""
    process = context.Process(target=main, args=(line,))
    process.start()
    process.join(seconds)
    alive = process.exitcode is None
    process.kill()
    process.join()
    return alive


@pytest.mark.parametrize("command", ["search", "train"])
def test_runs(
    command: str,
    forks: ForkServerContext,
    lines: dict[str, list[str]],
    left_alone: dict[str, Path],
    ends_alike: Alike,
    tmp_path: Path,
    long: bool,
    tally: Tally,
) -> None:
    moments = random.Random(0)
    begin = time.perf_counter()
    assert main([*lines[command], "--run", str(tmp_path / "timed")]) == 0
    whole = time.perf_counter() - begin
    run, killed = tmp_path / "run", 0
    while killed < (KILLS_LONG if long else KILLS):
        begun = (run / "config.yaml").exists()
        line = [command, "--resume", "--run", str(run)] if begun else [*lines[command], "--run", str(run)]
        if kill_after(forks, line, moments.uniform(0.1, 0.7) * whole):
            killed += 1
        else:  # it has ended: it is looked at, and another one begins
            assert ends_alike(run, left_alone[command])
            shutil.rmtree(run)
    begun = (run / "config.yaml").exists()
    line = [command, "--resume"] if begun else lines[command]
    assert main([*line, "--run", str(run)]) == 0
    same = ends_alike(run, left_alone[command])
    tally(f"kill -9 during {command}", killed, killed * same)
    assert same


def test_cache_building(
    forks: ForkServerContext, people: Path, data: list[str], tmp_path: Path, long: bool, tally: Tally
) -> None:
    options = [part.replace("--data.", "--") for part in data if part not in ("--device", "cpu")]
    options[options.index("--height") + 1] = "1536"  # so that building takes longer than beginning
    folder = options.index("--cache-dir") + 1
    options[folder] = str(tmp_path / "whole")
    begin = time.perf_counter()
    assert main(["data", "cache", *options]) == 0
    seconds = time.perf_counter() - begin
    moments = random.Random(1)
    options[folder] = str(tmp_path / "killed")
    killed = 0
    while killed < (KILLS_LONG if long else KILLS):
        if not kill_after(forks, ["data", "cache", *options], moments.uniform(0.1, 1) * seconds):
            shutil.rmtree(tmp_path / "killed")  # it was built, and is looked at in the end
            continue
        killed += 1
    assert main(["data", "cache", *options]) == 0
    files = [{p.name: p.read_bytes() for p in (tmp_path / n).iterdir()} for n in ("whole", "killed")]
    tally("kill -9 during cache building", killed, killed * (files[0] == files[1]))
    assert files[0] == files[1]
