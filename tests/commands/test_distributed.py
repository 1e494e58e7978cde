"""Two gloo processes compute what one process computes with the same batch; their errors."""

import importlib.util
import json
import math
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
TRAINING = [*SMALL, "--network", "autoreid_base_reid", "--epochs", "2", "--batch.identities", "4"]
"""Five steps per epoch; the network contains part_aware."""
SEARCHING = [*SMALL, "--epochs", "1", "--batch.identities", "2"]
"""Five steps of omega and five of alpha."""

ForkGroup = Callable[[list[Any]], list[Any]]
"""Starts two processes of a group."""


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
def runs(
    worker: ModuleType, fork_group: ForkGroup, data: list[str], tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Path]:
    """Folders of a search and a training, by the number of processes.

    That of two processes has another training, "separate", without joint statistics and losses.
    """
    folders = {count: tmp_path_factory.mktemp(f"of-{count}") for count in (1, 2)}
    lines = lines_into(folders[2], data)
    separate = ["--distributed.no-sync-bn", "--distributed.no-gather", "--epochs", "1"]
    lines.append([*lines[1], *separate, "--run", str(folders[2] / "separate")])
    file = folders[2] / "lines.json"
    file.write_text(json.dumps(lines))
    processes = fork_group([WORKER, file])
    with worker.in_double(), pytest.MonkeyPatch.context() as patch:
        for command in ("search", "train"):
            patch.setattr(f"autoreid_fast.commands.{command}.draw_report", lambda folder: None)
        assert [main(line) for line in lines_into(folders[1], data)] == [0, 0]
    (status, output, log), other = [process.wait() for process in processes]
    assert (status, other[0]) == (0, 0), log + other[2]
    assert "epoch   2/2" in log and "rank-1" in output
    assert other[1:] == ("", ""), "only the main process writes"
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


@pytest.mark.parametrize(("command", "epochs"), [("search", 1), ("train", 2)])
def test_two_processes_compute_what_one_computes(runs: dict[int, Path], command: str, epochs: int) -> None:
    """Histories, metrics, weights, running statistics and optimiser states."""
    one, two = (runs[count] / command for count in (1, 2))
    assert_close(*(json.loads((run / "history.json").read_text()) for run in (one, two)), "history")
    assert_close(*(json.loads((run / "metrics.json").read_text()) for run in (one, two)), "metrics")
    states = [torch.load(run / "checkpoints" / "last.pt", weights_only=True) for run in (one, two)]
    assert_close(*states, "checkpoint")
    assert torch.equal(states[0]["random"]["cpu"], states[1]["random"]["cpu"])
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    assert len(list((two / "events").iterdir())) == len(list((one / "events").iterdir()))
    assert (two / "log.txt").read_text().count(f"epoch   {epochs}/") == 1


def test_processes_with_separate_statistics_and_losses(runs: dict[int, Path]) -> None:
    """The loss is the mean over the processes, which start from the same weights."""
    separate, joint = (
        json.loads((runs[2] / name / "history.json").read_text()) for name in ("separate", "train")
    )
    assert len(separate) == 1
    assert separate[0]["cross_entropy"] == pytest.approx(joint[0]["cross_entropy"], rel=0.2)
    assert separate[0]["triplet"] < joint[0]["triplet"]  # the hardest of fewer images are easier
    states = [
        torch.load(runs[2] / name / "checkpoints" / "last.pt", weights_only=True)
        for name in ("separate", "train")
    ]
    assert states[0]["model"].keys() == states[1]["model"].keys()


def test_an_error_of_all_processes_is_printed_once(
    fork_group: ForkGroup, data: list[str], tmp_path: Path
) -> None:
    line = ["train", *data, "--batch.identities", "3", "--run", str(tmp_path / "run")]
    ended = [process.wait() for process in fork_group(line)]
    assert [status for status, _, _ in ended] == [2, 2]
    message = "batch.identities is 3, which is not divisible by the 2 processes of this run: make it a"
    assert [errors for _, _, errors in ended] == [f"autoreid-fast: {message} multiple of 2\n", ""]
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.fixture
def of_four(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Any]], None]:
    """Make this process the first of four; the returned function sets the values of the others."""
    monkeypatch.setattr(joint_batch, "current_shard", lambda: Shard(0, 4))

    def set_values(values: list[Any]) -> None:
        monkeypatch.setattr(collectives, "gather_from_processes", lambda value: [value, *values])

    return set_values


def test_a_batch_must_divide_by_the_processes(of_four: Callable[[list[Any]], None]) -> None:
    check_batch(BatchConfig(identities=4), DistributedConfig())
    check_batch(BatchConfig(identities=8), DistributedConfig(gather=False))
    with pytest.raises(AutoReIDError, match=r"batch\.identities is 6, which is not divisible by the 4"):
        check_batch(BatchConfig(identities=6), DistributedConfig())
    with pytest.raises(AutoReIDError, match=r"one per process, and distributed\.gather is off"):
        check_batch(BatchConfig(identities=4), DistributedConfig(gather=False))


def test_a_process_with_different_data_is_named(of_four: Callable[[list[Any]], None]) -> None:
    of_four(["a", "a", "a"])
    collectives.check_same("training images", "a")
    of_four(["a", "b", "a"])
    with pytest.raises(AutoReIDError, match="process 2 has training images 'b' and process 0 has 'a'"):
        collectives.check_same("training images", "a")
