"""Many search steps through cycles of stop and resume: memory stays flat."""

import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from autoreid_fast.cli import main

EPOCHS, STEPS, CYCLES = 6, 3, 2
EPOCHS_LONG, STEPS_LONG, CYCLES_LONG = 70, 30, 10
"""Step pairs are an epoch's. Few epochs, since each leaves its record of some KiB in the run's history."""
GROWTH = 16 << 20
"""Bytes: a search that kept one step's graph or one resume's supernet would take many times this."""


def resident() -> int:
    """Bytes of this process in memory now, but for those of files, which the kernel drops as it likes."""
    _, pages, of_files = map(int, Path("/proc/self/statm").read_text().split()[:3])
    return (pages - of_files) * resource.getpagesize()


def copies(people: Path, times: int, root: Path) -> Path:
    """The same people, each image to train on ``times`` times."""
    shutil.copytree(people, root)
    for image in (people / "train").iterdir():
        for copy in range(1, times):
            shutil.copy(image, root / "train" / f"{image.stem}_{copy}{image.suffix}")
    return root


def test_memory_is_flat_through_stops_and_resumes(
    people: Path,
    search_line: list[str],
    one_step_at_a_time: Callable[[Callable[[int], None]], None],
    tmp_path: Path,
    long: bool,
    inject: Callable[..., None],
    note: Callable[[str], None],
) -> None:
    epochs, an_epoch, cycles = (EPOCHS_LONG, STEPS_LONG, CYCLES_LONG) if long else (EPOCHS, STEPS, CYCLES)
    steps = epochs * an_epoch
    stops = {steps * cycle // (cycles + 1) for cycle in range(1, cycles + 1)}
    samples: list[int] = []

    def at_step(step: int) -> None:
        samples.append(resident())
        if step in stops:
            os.kill(os.getpid(), signal.SIGTERM)

    one_step_at_a_time(at_step)
    run = tmp_path / "run"
    root = copies(people, an_epoch // STEPS, tmp_path / "people")
    line = [str(root) if part == str(people) else part for part in search_line]
    line += ["--epochs", str(epochs), "--run", str(run)]
    for _ in range(cycles):
        inject("SIGTERM at a step of a long search")
        assert main(line) == 143
        line = ["search", "--resume", "--run", str(run)]
    assert main(line) == 0
    assert len(samples) == steps
    quarters = [max(samples[steps * q // 4 : steps * (q + 1) // 4]) for q in range(4)]
    highest = ", ".join(f"{size / 2**20:.1f}" for size in quarters)
    note(f"soak: {steps} step pairs, {cycles} stops and resumes; highest RSS by quarter {highest} MiB")
    assert quarters[3] - quarters[2] < GROWTH
