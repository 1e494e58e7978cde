"""Two gloo processes go the way of one with the joint batch, and fail as one."""

import importlib.util
import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from autoreid_fast.cli import main
from autoreid_fast.distributed import collectives
from autoreid_fast.distributed.processes import Shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.training import joint_batch
from autoreid_fast.training.config import BatchConfig, DistributedConfig
from autoreid_fast.training.joint_batch import check_batch

WORKER = Path(__file__).with_name("process_worker.py")
SMALL = [
    *("--channels", "3", "--cells-per-block", "1", "1", "1", "1", "--embedding-dim", "16"),
    *("--dropout", "0.5", "--batch.images", "2"),
]
TRAINING = [*SMALL, "--network", "autoreid_base_reid", "--epochs", "4", "--batch.identities", "4"]
"""Five steps an epoch, and part_aware in the network."""
SEARCHING = [*SMALL, "--epochs", "2", "--batch.identities", "2"]
"""Five steps of omega and five of alpha an epoch."""

Process = subprocess.Popen[str]


def start(arguments: list[Any], processes: int = 2) -> list[Process]:
    """Start ``python arguments`` in processes as torchrun does, but that one's death ends no other."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env=os.environ | common | {"RANK": str(process), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(processes)
    ]


def start_worker(folder: Path, lines: list[list[str]]) -> list[Process]:
    file = folder / "lines.json"
    file.write_text(json.dumps(lines))
    return start([WORKER, file])


def finish(processes: list[Process]) -> list[tuple[str, str]]:
    """Wait for all of them to end well; returns what they wrote, on standard output and error."""
    written = [process.communicate() for process in processes]
    assert not any(process.returncode for process in processes), written
    return written


@pytest.fixture(scope="module")
def worker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("process_worker", WORKER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lines_into(folder: Path, data: list[str]) -> list[list[str]]:
    return [
        ["search", *data, *SEARCHING, "--run", str(folder / "search")],
        ["train", *data, *TRAINING, "--run", str(folder / "train")],
    ]


@pytest.fixture(scope="module")
def runs(worker: ModuleType, data: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The folders of a search and a training in one process, and of the same in two."""
    folders = {count: tmp_path_factory.mktemp(f"of-{count}") for count in (1, 2)}
    lines = lines_into(folders[2], data)
    own = ["--distributed.no-sync-bn", "--distributed.no-gather", "--epochs", "1"]
    processes = start_worker(folders[2], [*lines, [*lines[1], *own, "--run", str(folders[2] / "own")]])
    with worker.in_double():
        assert [main(line) for line in lines_into(folders[1], data)] == [0, 0]
    (output, log), others = finish(processes)
    assert "epoch   4/4" in log and "rank-1" in output
    assert others == ("", ""), "the second process had a word"
    return folders


def assert_close(one: Any, other: Any, where: str) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for name in one.keys() - {"seconds", "random"}:
            assert_close(one[name], other[name], f"{where}.{name}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_close(*pair, f"{where}[{index}]")
    elif isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, msg=lambda text: f"{where}: {text}")
    elif isinstance(one, float):
        assert math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-7), f"{where}: {one} and {other}"
    else:
        assert one == other, where


@pytest.mark.parametrize("command", ["search", "train"])
def test_two_processes_go_the_way_of_one(runs: dict[int, Path], command: str) -> None:
    """Losses, rates, alpha, every weight and running statistic, optimisers, what was found or measured."""
    one, two = (runs[count] / command for count in (1, 2))
    assert_close(*(json.loads((run / "history.json").read_text()) for run in (one, two)), "history")
    assert_close(*(json.loads((run / "metrics.json").read_text()) for run in (one, two)), "metrics")
    states = [torch.load(run / "checkpoints" / "last.pt", weights_only=True) for run in (one, two)]
    assert_close(*states, "checkpoint")
    assert torch.equal(states[0]["random"]["cpu"], states[1]["random"]["cpu"])
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    assert len(list((two / "events").iterdir())) == len(list((one / "events").iterdir()))
    assert (two / "log.txt").read_text().count("epoch   2/") == 1


def test_processes_with_statistics_and_losses_of_their_own(runs: dict[int, Path]) -> None:
    """The loss is the mean of theirs, of a start that is the same; the running statistics are a mean too."""
    own, joint = (json.loads((runs[2] / name / "history.json").read_text()) for name in ("own", "train"))
    assert len(own) == 1
    assert own[0]["cross_entropy"] == pytest.approx(joint[0]["cross_entropy"], rel=0.2)
    assert own[0]["triplet"] < joint[0]["triplet"]  # among fewer images even the hardest are easier
    states = [
        torch.load(runs[2] / name / "checkpoints" / "last.pt", weights_only=True) for name in ("own", "train")
    ]
    assert states[0]["model"].keys() == states[1]["model"].keys()


def test_an_error_of_all_processes_is_said_once(data: list[str], tmp_path: Path) -> None:
    line = ["train", *data, "--batch.identities", "3", "--run", str(tmp_path / "run")]
    processes = start(["-m", "autoreid_fast", *line])
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    message = "batch.identities is 3, which is not divisible by the 2 processes of this run: make it a"
    assert errors == [f"autoreid-fast: {message} multiple of 2\n", ""]
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.fixture
def of_four(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Any]], None]:
    """Let this process be the first of four; the function says what each of them answers."""
    monkeypatch.setattr(joint_batch, "current_shard", lambda: Shard(0, 4))

    def answers(values: list[Any]) -> None:
        monkeypatch.setattr(collectives, "gather_from_processes", lambda value: [value, *values])

    return answers


def test_a_batch_that_cannot_be_shared(of_four: Callable[[list[Any]], None]) -> None:
    check_batch(BatchConfig(identities=4), DistributedConfig())
    check_batch(BatchConfig(identities=8), DistributedConfig(gather=False))
    with pytest.raises(AutoReIDError, match=r"batch\.identities is 6, which is not divisible by the 4"):
        check_batch(BatchConfig(identities=6), DistributedConfig())
    with pytest.raises(AutoReIDError, match=r"one per process, and distributed\.gather is off"):
        check_batch(BatchConfig(identities=4), DistributedConfig(gather=False))


def test_processes_that_see_other_data_are_named(of_four: Callable[[list[Any]], None]) -> None:
    of_four(["a", "a", "a"])
    collectives.check_same("training images", "a")
    of_four(["a", "b", "a"])
    with pytest.raises(AutoReIDError, match="process 2 has training images 'b' and process 0 has 'a'"):
        collectives.check_same("training images", "a")
