"""Several processes: one dies or hangs, or torchrun is stopped; the others end, and the run resumes."""

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

LOSSES: list[Fault] = [("dies", "step", 1), ("hangs", "save", 0)]
LOSSES_LONG: list[Fault] = list(product(("dies", "hangs"), ("step", "save"), (0, 1)))
STOPS = ["SIGTERM"]
STOPS_LONG = ["SIGTERM", "SIGINT"]


@pytest.fixture(scope="session")
def start(forks: ForkServerContext) -> Callable[..., list[ForkServerProcess]]:
    """Start a command line in two processes, as torchrun does, but without ending both if one dies."""

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
def resumes_well(
    start: Callable[..., list[ForkServerProcess]], same_end: Alike, two_undisturbed: Path
) -> Callable[[Path], bool]:
    """Whether a run resumed after a fault ends like that of two undisturbed processes."""

    def resumes_well(run: Path) -> bool:
        processes = start(["train", "--resume", "--run", str(run)], run.parent)
        for process in processes:
            process.join()
        return [process.exitcode for process in processes] == [0, 0] and same_end(run, two_undisturbed)

    return resumes_well


@pytest.fixture(scope="session")
def two_undisturbed(
    start: Callable[..., list[ForkServerProcess]],
    train_line: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Run folder of a training in two processes."""
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
    resumes_well: Callable[[Path], bool],
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
    message = (tmp_path / f"errors{1 - lost}").read_text().splitlines()[-1]
    assert other.exitcode == 2, message
    assert "another process of this run has ended or hangs (" in message
    assert "--resume continues from the last checkpoint" in message
    assert resumes_well(run)


@pytest.mark.parametrize("name", STOPS_LONG if LONG else STOPS)
def test_torchrun_is_stopped(
    name: str,
    resumes_well: Callable[[Path], bool],
    train_line: list[str],
    tmp_path: Path,
    inject: Inject,
) -> None:
    """All processes finish the same step, and the main one saves."""
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
    assert resumes_well(run)
