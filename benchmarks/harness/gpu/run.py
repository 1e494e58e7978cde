"""One run of a GPU session: `python -m autoreid_fast.benchmarks.harness.gpu.run first|second`.

Works through the items of `plans.py` until the deadline and writes OUT/first.json or OUT/second.json after
every item. `--device cpu --toy` rehearses it.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from .items import Deadline, Setting, work_through
from .plans import FIRST, SECOND

PLANS = {"first": (FIRST, 330), "second": (SECOND, 500)}
"""Items, and seconds from the start to the deadline."""
REHEARSED = 120
"""Seconds that an item may take in a rehearsal."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a plan. Returns 0 if no item failed, else 1; items skipped for want of time are no failure."""
    parser = argparse.ArgumentParser(prog="benchmarks/gpu_run.sh", description="One run of a GPU session.")
    parser.add_argument("run", choices=PLANS)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--toy", action="store_true", help="rehearse every item at toy sizes")
    parser.add_argument("--seconds", type=int, help="deadline instead of the plan's")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="folder for the results")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("gpu_run: no CUDA device that torch can use: nothing was run", file=sys.stderr)
        return 1
    items, seconds = PLANS[options.run]
    if options.toy:  # a slow machine must not skip what is rehearsed
        items, seconds = [replace(item, seconds=REHEARSED) for item in items], REHEARSED * len(items)
    options.out.mkdir(parents=True, exist_ok=True)
    setting = Setting(options.device, options.toy, options.out.resolve())
    file = work_through(options.run, items, setting, Deadline(options.seconds or seconds))
    return int(any(outcome.status == "failed" for outcome in file.outcomes))


if __name__ == "__main__":
    sys.exit(main())
