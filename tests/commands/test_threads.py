"""The same seed gives the same bits: ops on any number of threads, runs on any number of cores."""

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
THREAD_DEPENDENT = {
    "batch norm, channels last",
    "batch norm of (N, C)",
    "convolution",
    "convolution, gradient of its weight",
    "matrix product",
    "sum of many",
}
"""Torch operations that split sums by the number of threads: docs/develop/sanitizers.md."""


@pytest.fixture(scope="module")
def digests(
    search_line: list[str], data: list[str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, dict[str, str]]]:
    """Digests of two processes with THREADS threads each, one on all cores and one on a single core."""
    folder = tmp_path_factory.mktemp("threads")
    search = [*search_line, "--epochs", "1"]
    lines = [json.dumps(line) for line in (search, ["train", *data, *TRAIN])]
    environment = os.environ | {
        "OMP_NUM_THREADS": str(THREADS),
        "MKL_DYNAMIC": "FALSE",
        "OMP_WAIT_POLICY": "passive",  # idle threads must not take the single core from working ones
    }
    environment.pop("MKL_NUM_THREADS", None)
    cores = os.sched_getaffinity(0)
    processes = {}
    for name, mask in {"all": cores, "one": {min(cores)}}.items():
        (folder / name).mkdir()
        command = [sys.executable, str(WORKER), str(folder / name), ",".join(map(str, mask)), *lines]
        processes[name] = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    for process in processes.values():
        error = process.communicate()[1]
        assert process.returncode == 0, error[-3000:]
    return {name: json.loads((folder / name / "digests.json").read_text()) for name in processes}


def test_ops_do_not_depend_on_the_number_of_threads(digests: dict[str, dict[str, dict[str, str]]]) -> None:
    if not ops.status().libraries[0].loaded:
        pytest.skip("no native library: the references are operations of torch")
    assert digests["all"]["ops on 1"] == digests["all"]["ops on 2"] == digests["all"]["ops on 3"]


def test_only_known_operations_of_torch_depend_on_it(digests: dict[str, dict[str, dict[str, str]]]) -> None:
    by_threads = [digests["all"][f"torch on {threads}"] for threads in (1, 2, 3)]
    assert {
        name for name in by_threads[0] if len({result[name] for result in by_threads}) > 1
    } <= THREAD_DEPENDENT


def test_runs_do_not_depend_on_the_number_of_cores(digests: dict[str, dict[str, dict[str, str]]]) -> None:
    """With the number of threads set by the environment."""
    assert digests["all"]["threads"] == digests["one"]["threads"] == {"torch": str(THREADS)}
    assert digests["all"]["runs"] == digests["one"]["runs"]
