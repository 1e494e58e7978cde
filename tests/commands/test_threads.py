"""The same seed gives the same bits: our ops on any number of threads, a run on any number of cores."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autoreid_fast import ops

WORKER = Path(__file__).with_name("thread_worker.py")
TRAIN = [
    *("--channels", "4", "--cells-per-block", "1", "1", "1", "1", "--embedding-dim", "16", "--epochs", "1"),
    *("--decay-epochs", "1", "2", "--batch.identities", "4", "--network", "autoreid_retrieval"),
]


THREADS = 3
DIVIDED = {
    "batch norm, channels last",
    "batch norm of (N, C)",
    "convolution",
    "convolution, gradient of its weight",
    "matrix product",
    "sum of many",
}
"""Torch operations that split sums by the number of threads: docs/develop/sanitizers.md."""


@pytest.fixture(scope="module")
def found(
    search_line: list[str], data: list[str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, dict[str, str]]]:
    """What two processes of as many threads found, one of them with all cores and one on a single core."""
    folder = tmp_path_factory.mktemp("threads")
    search = [*search_line, "--epochs", "1"]
    lines = [json.dumps(line) for line in (search, ["train", *data, *TRAIN])]
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS), "MKL_DYNAMIC": "FALSE"}
    environment.pop("MKL_NUM_THREADS", None)
    cores = os.sched_getaffinity(0)
    processes = {}
    for name, own in {"all": cores, "one": {min(cores)}}.items():
        (folder / name).mkdir()
        command = [sys.executable, str(WORKER), str(folder / name), ",".join(map(str, own)), *lines]
        processes[name] = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    for process in processes.values():
        error = process.communicate()[1]
        assert process.returncode == 0, error[-3000:]
    return {name: json.loads((folder / name / "digests.json").read_text()) for name in processes}


def test_ops_give_the_same_bits_on_any_number_of_threads(found: dict[str, dict[str, dict[str, str]]]) -> None:
    if not ops.status().libraries[0].loaded:
        pytest.skip("no native library: the twins are torch's own operations")
    assert found["all"]["ops on 1"] == found["all"]["ops on 2"] == found["all"]["ops on 3"]


def test_so_do_those_of_torch_but_for_some(found: dict[str, dict[str, dict[str, str]]]) -> None:
    on = [found["all"][f"torch on {threads}"] for threads in (1, 2, 3)]
    assert {name for name in on[0] if len({each[name] for each in on}) > 1} <= DIVIDED


def test_runs_give_the_same_bits_on_any_number_of_cores(found: dict[str, dict[str, dict[str, str]]]) -> None:
    """With the same number of threads, which the environment sets."""
    assert found["all"]["threads"] == found["one"]["threads"] == {"torch": str(THREADS)}
    assert found["all"]["runs"] == found["one"]["runs"]
