"""Run tasks as commands in processes of their own, some at a time; what is finished is never run again."""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml

from autoreid_fast.configs import from_values
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import write_text
from autoreid_fast.runs.folder import RunFolder, plain
from autoreid_fast.stopping import InterruptedRun
from autoreid_fast.tables.plan import Task

logger = logging.getLogger("autoreid_fast")

LOOK_EVERY = 0.2
"""Seconds between two looks at the processes."""


def run_tasks(
    tasks: Sequence[Task], out: Path, jobs: int, processes: int, on_done: Callable[[], None]
) -> dict[Path, str]:
    """Run the ``tasks`` that have left no result yet; returns the results that failed, with the reason.

    A run that was begun goes on where it stopped. A failure keeps back what needs its result, and nothing
    else. ``jobs`` tasks run at a time, each in ``processes`` processes (torchrun); where there are GPUs they
    are dealt to them in turn. ``on_done`` is called after each task.

    Raises:
        AutoReIDError: a run folder holds a run of other settings.
    """
    for task in tasks:
        _check_same_settings(task)
    failed: dict[Path, str] = {}
    with _alone(out) as lock:
        done = {task.result for task in tasks if task.result.exists()}
        waiting = [task for task in tasks if task.result not in done]
        running: dict[int, tuple[Task, subprocess.Popen[bytes]]] = {}
        logger.info("%d of %d runs to do, %d at a time", len(waiting), len(tasks), jobs)
        try:
            while waiting or running:
                for task in [task for task in waiting if not failed.keys().isdisjoint(task.after)]:
                    failed[task.result] = "what it needs has failed"
                    waiting.remove(task)
                for slot in set(range(jobs)) - set(running):
                    ready = (task for task in waiting if done.issuperset(task.after))
                    if (begun := next(ready, None)) is not None:
                        waiting.remove(begun)
                        logger.info("%s: begins", begun.name)
                        running[slot] = (begun, _start(begun, out, slot, jobs, processes, lock))
                time.sleep(LOOK_EVERY)
                for slot, (task, process) in list(running.items()):
                    if process.poll() is None:
                        continue
                    del running[slot]
                    if process.returncode or not task.result.exists():
                        failed[task.result] = _last_line(_log(task, out))
                        logger.info("%s: failed: %s", task.name, failed[task.result])
                    else:
                        done.add(task.result)
                        logger.info("%s: done", task.name)
                    on_done()
        except KeyboardInterrupt as interrupt:  # a terminal has interrupted the children as well
            if isinstance(interrupt, InterruptedRun) and interrupt.number == signal.SIGTERM:
                for _, process in running.values():
                    process.terminate()
            for _, process in running.values():
                process.wait()
            raise
    return failed


def _check_same_settings(task: Task) -> None:
    run = RunFolder(task.run)
    if task.config is None or not run.config.exists():
        return
    recorded = from_values(type(task.config), run.recorded(task.command), str(run.config))
    one, other = (config.model_dump(exclude={"device"}) for config in (recorded, task.config))
    for field, value in one.items():
        if value != other[field]:
            raise AutoReIDError(
                f"{task.run} holds a run of other settings ({field}: {value}, now {other[field]}): give "
                "another --out"
            )


def _start(task: Task, out: Path, slot: int, jobs: int, processes: int, lock: int) -> subprocess.Popen[bytes]:
    log = _log(task, out)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", *_program(task, processes), *_arguments(task)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=os.environ | _share_of_machine(slot, jobs, processes),
            pass_fds=[lock],
        )


def _program(task: Task, processes: int) -> list[str]:
    """The module to run, alone or by torchrun; re-ranking runs in one process."""
    if processes == 1 or task.command == "rank":
        return ["autoreid_fast"]
    # without the dashes torchrun takes our --run for the beginning of an option of its own
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*torchrun, "-m", "--", "autoreid_fast"]


def _arguments(task: Task) -> list[str]:
    """The command line that begins a task, or goes on with it."""
    if task.config is None:
        return ["rank", str(task.run / "features"), "--rerank", "--json", str(task.result)]
    if (task.run / "config.yaml").exists():
        return [task.command, "--resume", "--run", str(task.run)]
    config = task.run.with_name(f"{task.run.name}.yaml")
    write_text(config, yaml.safe_dump(plain(task.config.model_dump()), sort_keys=False))
    return [task.command, "--config", str(config), "--run", str(task.run)]


def _share_of_machine(slot: int, jobs: int, processes: int) -> dict[str, str]:
    """The GPUs of one of ``jobs`` tasks at a time, or its part of the cores."""
    if (count := torch.cuda.device_count()) > 0:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
        own = [visible[(slot * processes + i) % count] for i in range(min(processes, count))]
        return {"CUDA_VISIBLE_DEVICES": ",".join(own)}
    threads = max(1, len(os.sched_getaffinity(0)) // (jobs * processes))
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}


@contextmanager
def _alone(out: Path) -> Iterator[int]:
    """Hold the folder; yields the lock, which children share: it is free when the last of them has ended."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("%s: rows of it are still running; waiting for them to end", out)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield stream.fileno()


def _log(task: Task, out: Path) -> Path:
    return out / "logs" / f"{task.result.relative_to(out).with_suffix('')}.log".replace(os.sep, "-")


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return f"{lines[-1] if lines else 'no word of it'} ({log})"
