"""setup.py builds the CUDA library without a GPU too, and says in one line what is missing."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def build(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `setup.py build_ext` into `folder`; `stdout` has everything that it prints."""
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", folder]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("AUTOREID_FAST_")}
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**kept, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def written(folder: Path, monkeypatch: pytest.MonkeyPatch, **paths: Path) -> str:
    """The build file that a clone in ``folder`` writes for the CPU, with Python's ``paths`` replaced."""
    shutil.copytree(ROOT / "csrc", folder / "csrc")
    real = sysconfig.get_path
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(paths.get(name, real(name))))
    names: dict[str, Any] = {"__file__": str(folder / "setup.py"), "__name__": "setup_of_a_clone"}
    exec((ROOT / "setup.py").read_text().split("\nsetup(")[0], names)
    names["write_ninja"](folder / "build.ninja", ["cpu"])
    return re.sub(r"\$\n *", "", (folder / "build.ninja").read_text())  # without line breaks


def test_a_folder_with_a_space_and_a_dollar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, headers = tmp_path / "my $2 projects", tmp_path / "python headers"
    headers.mkdir()
    (headers / "Python.h").touch()
    folder.mkdir()
    text = written(folder, monkeypatch, include=headers)
    assert f"-isystem '{headers}'" in text
    command = [sys.executable, "-m", "ninja", "-n", "-v", "-C", folder]
    done = subprocess.run(command, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout
    assert f"'{folder}/csrc/stencil3x3/stencil3x3_torch.cpp'" in done.stdout


def test_without_pythons_headers_the_ops_are_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "clone"
    folder.mkdir()
    text = written(folder, monkeypatch, include=tmp_path)
    assert "libautoreid_fast_cpu.so" in text
    assert "face" not in text


def test_no_compiler_is_a_pure_python_install(tmp_path: Path) -> None:
    done = build(tmp_path, PATH=str(tmp_path), CXX="g++")
    assert done.returncode == 0, done.stdout
    assert done.stdout == "autoreid_fast: no C++ compiler (g++ or $CXX): pure Python, no native library\n"
    assert list(tmp_path.iterdir()) == []


def test_reference_backend_builds_nothing(tmp_path: Path) -> None:
    done = build(tmp_path, AUTOREID_FAST_BACKEND="reference")
    assert done.returncode == 0, done.stdout
    assert "pure Python" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_cuda_required_without_nvcc_is_an_error(tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    assert compiler
    done = build(tmp_path, AUTOREID_FAST_CUDA="1", PATH=str(tmp_path), CXX=compiler, CUDA_HOME=str(tmp_path))
    assert done.returncode != 0
    assert done.stdout.splitlines()[-1].startswith("autoreid_fast: AUTOREID_FAST_CUDA=1, but nvcc is neither")


def test_cuda_library_links_and_no_kernel_spills(tmp_path: Path) -> None:
    if os.environ.get("AUTOREID_FAST_CUDA") != "1" and shutil.which("nvcc") is None:
        pytest.skip("no nvcc on PATH (AUTOREID_FAST_CUDA=1 makes this an error)")
    done = build(tmp_path, AUTOREID_FAST_CUDA="1")
    assert done.returncode == 0, done.stdout[-3000:]
    library = (tmp_path / "autoreid_fast" / "libautoreid_fast_cuda.so").read_bytes()
    assert b"aoti_torch_get_current_cuda_stream" in library
    assert b"libtorch_cuda.so" in library  # in which the loader finds that symbol
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
