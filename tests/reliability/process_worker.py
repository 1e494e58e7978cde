"""One process of test_processes.py: a command line, with a fault in one of the processes.

PLAN, a global (of ``runpy``) or the JSON file that is named, has the ``line``, the ``fault`` (the arguments
of ``inject``) or None, and where no torchrun makes them the ``environment`` and the file for ``errors``.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch.distributed.distributed_c10d import _set_pg_timeout

from autoreid_fast.cli import main
from autoreid_fast.commands import train
from autoreid_fast.distributed import group, heartbeat
from autoreid_fast.training import checkpointing
from autoreid_fast.training.epoch import Epoch

STEP = 8
"""Step of the fault, from 0: the third of the second epoch, of six each."""


def once(count: int, function: Callable[[], None]) -> Callable[[], None]:
    """Call ``function`` in call ``count``, from 0."""
    calls = iter(range(10**9))
    return lambda: function() if next(calls) == count else None


def to_torchrun(number: int) -> None:
    """Send ``torchrun`` a signal, and wait until it arrives here."""
    os.kill(os.getppid(), number)
    while signal.getsignal(number) is not signal.SIG_DFL:  # set by the first signal of a run
        time.sleep(0.001)


FAULTS: dict[str, Callable[[], None]] = {
    "dies": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hangs": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "SIGTERM": lambda: to_torchrun(signal.SIGTERM),
    "SIGINT": lambda: to_torchrun(signal.SIGINT),
}


def inject(kind: str, where: str, process: int) -> None:
    """Inject a fault into ``process`` in a ``where``: step, or save, when a checkpoint is written.

    From then on the others lose patience sooner than users would.
    """
    group.TIMEOUT = timedelta(minutes=10)  # a busy machine must not count as a dead process

    def moment() -> None:
        if kind in ("dies", "hangs"):
            heartbeat.SILENCE = 2.0
            _set_pg_timeout(timedelta(seconds=2))
        if int(os.environ["RANK"]) == process:
            FAULTS[kind]()

    at_step, at_save = once(STEP, moment), once(1, moment)  # call 0 looks for a checkpoint
    add, on_main = Epoch.add, checkpointing.on_main

    def adding(self: Epoch, **losses: torch.Tensor) -> None:
        at_step()
        add(self, **losses)

    def saving(function: Callable[[], Any]) -> Any:
        at_save()
        return on_main(function)

    if where == "step":
        Epoch.add = adding
    else:
        checkpointing.on_main = saving


if __name__ == "__main__":
    plan = globals()["PLAN"] if "PLAN" in globals() else json.loads(Path(sys.argv[1]).read_text())
    os.environ.update(plan.get("environment", {}))
    if "errors" in plan:
        os.dup2(os.open(plan["errors"], os.O_CREAT | os.O_WRONLY), 2)
        sys.stderr = os.fdopen(2, "w")
    torch.set_num_threads(1)
    train.draw_report = lambda run: None
    if plan["fault"] is not None:
        inject(*plan["fault"])
    sys.exit(main(plan["line"]))
