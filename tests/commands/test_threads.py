"""The same seed gives the same bits: our ops on any number of threads, a run on the same number of them."""

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


def digests(threads: int, folder: Path, lines: list[list[str]]) -> dict[str, dict[str, str]]:
    folder.mkdir()
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "OMP_DYNAMIC": "false",
        "MKL_DYNAMIC": "false",
    }
    command = [sys.executable, str(WORKER), str(threads), str(folder), *map(json.dumps, lines)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "digests.json").read_text())


@pytest.fixture(scope="module")
def found(
    search_line: list[str], data: list[str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, dict[str, str]]]:
    """By number of threads; the runs, which take longer, twice on two of them."""
    folder = tmp_path_factory.mktemp("threads")
    search = [*search_line, "--epochs", "1"]
    lines = [search, ["train", *data, *TRAIN]]
    runs = {"1": [], "2": lines, "2 again": lines, "3": []}
    return {name: digests(int(name[0]), folder / name, own) for name, own in runs.items()}


def test_ops_give_the_same_bits_on_any_number_of_threads(found: dict[str, dict[str, dict[str, str]]]) -> None:
    if not ops.status().libraries[0].loaded:
        pytest.skip("no native library: the twins are torch's own operations")
    for name, each in found.items():
        assert each["ops"] == found["1"]["ops"], name


def test_runs_give_the_same_bits_twice(found: dict[str, dict[str, dict[str, str]]]) -> None:
    assert found["2"] == found["2 again"]
