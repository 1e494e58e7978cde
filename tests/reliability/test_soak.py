"""Many search steps through cycles of stop and resume: memory stays flat."""

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

from autoreid_fast.cli import main

EPOCHS, CYCLES = 6, 2
EPOCHS_LONG, CYCLES_LONG = 700, 10
STEPS = 3
"""Step pairs an epoch."""
GROWTH = 16 << 20
"""Bytes: a search that kept one step's graph or one resume's supernet would take many times this."""


def resident() -> int:
    """Bytes of this process in memory now, but for those of files, which the kernel drops as it likes."""
    _, pages, of_files = map(int, Path("/proc/self/statm").read_text().split()[:3])
    return (pages - of_files) * resource.getpagesize()


def test_memory_is_flat_through_stops_and_resumes(
    search_line: list[str],
    one_step_at_a_time: Callable[[Callable[[int], None]], None],
    tmp_path: Path,
    long: bool,
    inject: Callable[..., None],
    note: Callable[[str], None],
) -> None:
    epochs, cycles = (EPOCHS_LONG, CYCLES_LONG) if long else (EPOCHS, CYCLES)
    steps = epochs * STEPS
    stops = {steps * cycle // (cycles + 1) for cycle in range(1, cycles + 1)}
    samples: list[int] = []

    def at_step(step: int) -> None:
        samples.append(resident())
        if step in stops:
            os.kill(os.getpid(), signal.SIGTERM)

    one_step_at_a_time(at_step)
    run = tmp_path / "run"
    line = [*search_line, "--epochs", str(epochs), "--run", str(run)]
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
