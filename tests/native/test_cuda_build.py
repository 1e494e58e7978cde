"""nvcc compiles the CUDA library and links it, on a machine without a GPU too, and no kernel spills."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_cuda_library_links_and_no_kernel_spills(tmp_path: Path) -> None:
    if os.environ.get("AUTOREID_FAST_CUDA") != "1" and shutil.which("nvcc") is None:
        pytest.skip("no nvcc on PATH (AUTOREID_FAST_CUDA=1 makes this an error)")
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", tmp_path]
    environment = {**os.environ, "AUTOREID_FAST_CUDA": "1"}
    environment.pop("AUTOREID_FAST_BACKEND", None)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    library = (tmp_path / "autoreid_fast" / "libautoreid_fast_cuda.so").read_bytes()
    assert b"aoti_torch_get_current_cuda_stream" in library
    assert b"libtorch_cuda.so" in library  # where the loader finds that symbol
    logs = sorted((ROOT / "build" / "native" / "cuda").glob("*.cu.o.log"))
    assert logs
    for log in logs:
        text = log.read_text()
        kernels = re.findall(r"Compiling entry function '(\S+)' for '(sm_\d+)'", text)
        stack = re.findall(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", text
        )
        assert {arch for _, arch in kernels} == {"sm_80", "sm_90", "sm_100"}
        assert len(kernels) == len(stack)
        wrong = [name for name, sizes in zip(kernels, stack, strict=True) if sizes != ("0", "0", "0")]
        assert not wrong, f"{log.name}: these use the stack: {wrong}"
