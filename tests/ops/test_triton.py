"""The Triton kernels without a GPU: run in the interpreter, and compiled ahead of time.

Each in a process of its own: the interpreter is chosen per process, and an access out of bounds crashes it.
"""

import multiprocessing
import runpy
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pytest

from autoreid_fast import ops

triton = pytest.importorskip("triton", reason="triton is not installed")

FOLDER = Path(__file__).parent
KERNELS = sorted({spec.triton.rpartition(".")[2] for spec in ops.specs() if spec.triton is not None})
Run = Callable[..., None]


@pytest.fixture
def run(forks: ForkServerContext, tmp_path: Path) -> Run:
    """Run a script with environment variables; the test fails as the script does."""
    spawns = multiprocessing.get_context("spawn")  # forks have triton without its interpreter

    def run(script: str, **environment: str) -> None:
        errors = tmp_path / "errors"
        errors.touch()
        plan = {"script": str(FOLDER / script), "errors": str(errors), "environment": environment}
        worker = (str(FOLDER / "triton_worker.py"), {"PLAN": plan}, "__main__")
        context = spawns if "TRITON_INTERPRET" in environment else forks
        process = context.Process(target=runpy.run_path, args=worker)
        process.start()
        process.join()
        assert process.exitcode == 0, f"exit {process.exitcode}: {errors.read_text()[-3000:]}"

    return run


@pytest.mark.skipif(
    triton.__version__.startswith("3.6.") and np.lib.NumpyVersion(np.__version__) >= "2.4.0",
    reason="the interpreter of triton 3.6 cannot run a loop with numpy 2.4",
)
@pytest.mark.parametrize("name", KERNELS)
def test_interpreted_kernels_agree_with_the_reference(name: str, run: Run) -> None:
    run(f"{name}/interpret_{name}.py", TRITON_INTERPRET="1")


@pytest.mark.parametrize("name", KERNELS)
def test_compiles_ahead_of_time_without_spills(name: str, run: Run, tmp_path: Path) -> None:
    run(f"{name}/ahead_{name}.py", TRITON_CACHE_DIR=str(tmp_path))


@pytest.mark.parametrize("name", KERNELS)
def test_launches_compile_for_the_types_of_their_arguments(name: str, run: Run, tmp_path: Path) -> None:
    run(f"{name}/launch_{name}.py", TRITON_CACHE_DIR=str(tmp_path))
