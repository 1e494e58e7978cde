"""Several processes: one dies or hangs, or torchrun is stopped; the others end, and the run goes on."""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest

from autoreid_fast.runs.checkpoint import load_checkpoint

WORKER = Path(__file__).with_name("process_worker.py")
LONG = os.environ.get("AUTOREID_FAST_LONG") == "1"
Alike = Callable[[Path, Path], bool]
Inject = Callable[..., None]
Fault = tuple[str, str, int]

LOSSES: list[Fault] = [("dies", "step", 1), ("hangs", "step", 1), ("hangs", "save", 0)]
LOSSES_LONG: list[Fault] = list(product(("dies", "hangs"), ("step", "save"), (0, 1)))
STOPS = ["SIGTERM"]
STOPS_LONG = ["SIGTERM", "SIGINT"]


@pytest.fixture(scope="session")
def start(forks: ForkServerContext) -> Callable[..., list[ForkServerProcess]]:
    """Start a command line in two processes as torchrun does, but that one's death ends no other."""

    def start(line: list[str], folder: Path, fault: Fault | None = None) -> list[ForkServerProcess]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        processes = []
        for process in range(2):
            environment = common | {"RANK": str(process)}
            errors = str(folder / f"errors{process}")
            plan = {"line": line, "fault": fault, "environment": environment, "errors": errors}
            arguments = (str(WORKER), {"PLAN": plan}, "__main__")
            processes.append(forks.Process(target=runpy.run_path, args=arguments))
            processes[-1].start()
        return processes

    return start


@pytest.fixture(scope="session")
def goes_on(
    start: Callable[..., list[ForkServerProcess]], ends_alike: Alike, two_left_alone: Path
) -> Callable[[Path], bool]:
    """Whether a run that was hurt, gone on with, ends as the two processes that nobody hurt."""

    def goes_on(run: Path) -> bool:
        processes = start(["train", "--resume", "--run", str(run)], run.parent)
        for process in processes:
            process.join()
        return [process.exitcode for process in processes] == [0, 0] and ends_alike(run, two_left_alone)

    return goes_on


@pytest.fixture(scope="session")
def two_left_alone(
    start: Callable[..., list[ForkServerProcess]],
    train_line: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The run folder of a training in two processes."""
    folder = tmp_path_factory.mktemp("two")
    for process in start([*train_line, "--run", str(folder / "run")], folder):
        process.join()
        assert process.exitcode == 0, (folder / "errors0").read_text()
    return folder / "run"


@pytest.mark.parametrize(("kind", "where", "lost"), LOSSES_LONG if LONG else LOSSES)
def test_one_is_lost(
    kind: str,
    where: str,
    lost: int,
    start: Callable[..., list[ForkServerProcess]],
    goes_on: Callable[[Path], bool],
    train_line: list[str],
    tmp_path: Path,
    inject: Inject,
) -> None:
    run = tmp_path / "run"
    processes = start([*train_line, "--run", str(run)], tmp_path, (kind, where, lost))
    inject(f"process of two that {kind}")
    other = processes[1 - lost]
    other.join()
    processes[lost].kill()
    processes[lost].join()
    assert processes[lost].exitcode == -signal.SIGKILL
    said = (tmp_path / f"errors{1 - lost}").read_text().splitlines()[-1]
    assert other.exitcode == 2, said
    assert "another process of this run has ended or hangs (" in said
    assert "--resume continues from the last checkpoint" in said
    assert goes_on(run)


@pytest.mark.parametrize("name", STOPS_LONG if LONG else STOPS)
def test_torchrun_is_stopped(
    name: str, goes_on: Callable[[Path], bool], train_line: list[str], tmp_path: Path, inject: Inject
) -> None:
    """All of its processes finish the same step, the main one saves."""
    run, plan = tmp_path / "run", tmp_path / "plan.json"
    line = [*train_line, "--run", str(run)]
    plan.write_text(json.dumps({"line": line, "fault": (name, "step", 0)}))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    inject(f"{name} of torchrun at a step")
    ended = subprocess.run([*torchrun, str(WORKER), str(plan)], capture_output=True, text=True)
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.count("autoreid-fast: interrupted; resume with --resume --run") == 1
    state = load_checkpoint(run / "checkpoints" / "last.pt")
    assert (state["epoch"], len(state["losses"])) == (1, 3)
    assert goes_on(run)
