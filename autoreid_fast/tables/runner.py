"""Run tasks in processes of their own, several at a time; finished tasks are not run again."""

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
from autoreid_fast.stopping import InterruptedRun, hangups_ignored
from autoreid_fast.tables.plan import Task

logger = logging.getLogger("autoreid_fast")

POLL_INTERVAL = 0.2
"""Seconds between two checks of the processes."""


def run_tasks(
    tasks: Sequence[Task], out: Path, jobs: int, processes: int, on_done: Callable[[], object]
) -> dict[Path, str]:
    """Run the tasks that have no result yet; interrupted runs are resumed.

    After a failure, only the tasks that need its result are skipped.

    Args:
        tasks: tasks, each after its prerequisites.
        out: folder of the table, for logs and a lock.
        jobs: number of tasks that run at the same time; GPUs are assigned to them in turn.
        processes: number of processes per task (torchrun).
        on_done: called after each task.

    Returns:
        Reasons of failures, by the result that is missing.

    Raises:
        AutoReIDError: a run folder holds a run with other settings.
    """
    for task in tasks:
        _check_same_settings(task)
    with hangups_ignored(), _lock(out) as lock:
        pool = _Pool(tasks, out, jobs, processes, lock)
        logger.info("%d of %d runs to do, %d at a time", len(pool.waiting), len(tasks), jobs)
        try:
            while pool.waiting or pool.running:
                pool.start_ready()
                time.sleep(POLL_INTERVAL)
                for _ in range(pool.collect_finished()):
                    on_done()
        except KeyboardInterrupt as interrupt:
            # Ctrl-C in a terminal reaches the children too; SIGTERM does not
            pool.stop(terminate=isinstance(interrupt, InterruptedRun) and interrupt.number == signal.SIGTERM)
            raise
    return pool.failed


class _Pool:
    """Waiting, running, finished and failed tasks; a running task occupies one of ``jobs`` slots."""

    def __init__(self, tasks: Sequence[Task], out: Path, jobs: int, processes: int, lock: int) -> None:
        self.out = out
        self.jobs = jobs
        self.processes = processes
        self.lock = lock
        self.done = {task.result for task in tasks if task.result.exists()}
        self.waiting = [task for task in tasks if task.result not in self.done]
        self.running: dict[int, tuple[Task, subprocess.Popen[bytes]]] = {}
        self.failed: dict[Path, str] = {}

    def start_ready(self) -> None:
        """Fill free slots with tasks whose prerequisites are done; drop those whose prerequisites failed."""
        for task in [task for task in self.waiting if not self.failed.keys().isdisjoint(task.after)]:
            self.failed[task.result] = "a run that it needs has failed"
            self.waiting.remove(task)
        for slot in set(range(self.jobs)) - set(self.running):
            ready = next((task for task in self.waiting if self.done.issuperset(task.after)), None)
            if ready is None:
                return
            self.waiting.remove(ready)
            logger.info("%s: started", ready.name)
            self.running[slot] = (ready, self._start(ready, slot))

    def collect_finished(self) -> int:
        """Free the slots of ended processes and record their results; return their number."""
        ended = [slot for slot, (_, process) in self.running.items() if process.poll() is not None]
        for slot in ended:
            task, process = self.running.pop(slot)
            if process.returncode or not task.result.exists():
                self.failed[task.result] = _last_line(_log_file(task, self.out))
                logger.info("%s: failed: %s", task.name, self.failed[task.result])
            else:
                self.done.add(task.result)
                logger.info("%s: done", task.name)
        return len(ended)

    def stop(self, terminate: bool) -> None:
        """Wait for all running processes, after sending them SIGTERM if ``terminate``."""
        for _, process in self.running.values():
            if terminate:
                process.terminate()
        for _, process in self.running.values():
            process.wait()

    def _start(self, task: Task, slot: int) -> subprocess.Popen[bytes]:
        log = _log_file(task, self.out)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            return subprocess.Popen(
                [sys.executable, "-m", *_program(task, self.processes), *_arguments(task)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=os.environ | _resources(slot, self.jobs, self.processes),
                pass_fds=[self.lock],
            )


def _check_same_settings(task: Task) -> None:
    run = RunFolder(task.run)
    if task.config is None or not run.config.exists():
        return
    recorded = from_values(type(task.config), run.recorded(task.command), str(run.config))
    before, now = (config.model_dump(exclude={"device"}) for config in (recorded, task.config))
    for field, value in before.items():
        if value != now[field]:
            raise AutoReIDError(
                f"{task.run} holds a run with other settings ({field}: {value}, now {now[field]}); give "
                "another --out"
            )


def _program(task: Task, processes: int) -> list[str]:
    """The module to run, directly or by torchrun; re-ranking uses one process."""
    if processes == 1 or task.command == "rank":
        return ["autoreid_fast"]
    # without the dashes, torchrun would read our --run as an abbreviation of one of its options
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*torchrun, "-m", "--", "autoreid_fast"]


def _arguments(task: Task) -> list[str]:
    """Arguments that start or resume a task."""
    if task.config is None:
        return ["rank", str(task.run / "features"), "--rerank", "--json", str(task.result)]
    if (task.run / "config.yaml").exists():
        return [task.command, "--resume", "--run", str(task.run)]
    config = task.run.with_name(f"{task.run.name}.yaml")
    write_text(config, yaml.safe_dump(plain(task.config.model_dump()), sort_keys=False))
    return [task.command, "--config", str(config), "--run", str(task.run)]


def _resources(slot: int, jobs: int, processes: int) -> dict[str, str]:
    """Environment variables that give a slot its GPUs or, without GPUs, its number of threads."""
    if (count := torch.cuda.device_count()) > 0:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
        assigned = [visible[(slot * processes + i) % count] for i in range(min(processes, count))]
        return {"CUDA_VISIBLE_DEVICES": ",".join(assigned)}
    threads = max(1, len(os.sched_getaffinity(0)) // (jobs * processes))
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}


@contextmanager
def _lock(out: Path) -> Iterator[int]:
    """Lock the table's folder, waiting for runs of an earlier command.

    Child processes inherit the yielded lock, so it is free only when the last of them has ended.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("%s: runs of an earlier command have not ended; waiting for them", out)
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield stream.fileno()


def _log_file(task: Task, out: Path) -> Path:
    return out / "logs" / f"{task.result.relative_to(out).with_suffix('')}.log".replace(os.sep, "-")


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return f"{lines[-1] if lines else 'nothing was logged'} ({log})"
