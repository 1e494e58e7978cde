"""The Triton kernels without a GPU: run in the interpreter, and compiled ahead of time.

Each in a process of its own: the interpreter is chosen per process, and an access out of bounds crashes it.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from autoreid_fast import ops

triton = pytest.importorskip("triton", reason="triton is not installed")

FOLDER = Path(__file__).parent
KERNELS = sorted({spec.triton.rpartition(".")[2] for spec in ops.specs() if spec.triton is not None})


def run(script: str, **environment: str) -> None:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("TRITON_")}
    ended = subprocess.run(
        [sys.executable, FOLDER / script],
        env={**inherited, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(FOLDER), **environment},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]


@pytest.mark.skipif(
    triton.__version__.startswith("3.6.") and np.lib.NumpyVersion(np.__version__) >= "2.4.0",
    reason="the interpreter of triton 3.6 cannot run a loop with numpy 2.4",
)
@pytest.mark.parametrize("name", KERNELS)
def test_interpreted_kernels_agree_with_the_reference(name: str) -> None:
    run(f"{name}/interpret_{name}.py", TRITON_INTERPRET="1")


@pytest.mark.parametrize("name", KERNELS)
def test_compiles_ahead_of_time_without_spills(name: str, tmp_path: Path) -> None:
    run(f"{name}/ahead_{name}.py", TRITON_CACHE_DIR=str(tmp_path))


@pytest.mark.parametrize("name", KERNELS)
def test_launches_compile_for_the_types_of_their_arguments(name: str, tmp_path: Path) -> None:
    run(f"{name}/launch_{name}.py", TRITON_CACHE_DIR=str(tmp_path))
