"""Many search steps, stopped and resumed again and again: memory stays constant."""

import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from autoreid_fast.cli import main

EPOCHS, STEPS, CYCLES = 6, 3, 2
EPOCHS_LONG, STEPS_LONG, CYCLES_LONG = 70, 30, 10
"""Cycles, epochs and step pairs per epoch; few epochs, as each adds a few KiB to the history."""
GROWTH = 16 << 20
"""Bytes; keeping one step's graph or one resumed supernet would need many times as much."""


def resident() -> int:
    """Resident bytes of this process without mapped files, which the kernel may drop."""
    _, pages, of_files = map(int, Path("/proc/self/statm").read_text().split()[:3])
    return (pages - of_files) * resource.getpagesize()


def copies(people: Path, times: int, root: Path) -> Path:
    """Copy ``people`` with every training image ``times`` times."""
    shutil.copytree(people, root)
    for image in (people / "train").iterdir():
        for copy in range(1, times):
            shutil.copy(image, root / "train" / f"{image.stem}_{copy}{image.suffix}")
    return root


def test_memory_is_flat_through_stops_and_resumes(
    people: Path,
    search_line: list[str],
    at_each_step: Callable[[Callable[[int], None]], None],
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

    at_each_step(at_step)
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
