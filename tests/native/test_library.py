"""Loading the native libraries: `ops.status`, and one line instead of a traceback for a bad library."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import autoreid_fast
from autoreid_fast import ops
from autoreid_fast.ops import library

PACKAGE = Path(autoreid_fast.__file__).parent
LIBRARY = "libautoreid_fast_cpu.so"
ISOLATE = """
import sys
# the finder of an editable install would find the modules that the copy lacks
sys.meta_path[:] = [finder for finder in sys.meta_path if "Editable" not in str(finder)]
"""
USE = """
import torch
from autoreid_fast import ops
loss = ops.batch_hard(torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0, 0, 1]), margin=2.0).loss
cpu = ops.status().libraries[0]
print(round(loss.item(), 4), cpu.built, cpu.loaded, cpu.reason, sep="|")
"""


def run(package: Path, **environment: str) -> tuple[list[str], list[str]]:
    """Run USE in a new interpreter that imports this copy of the package; return its output and its log."""
    code = f"{ISOLATE}sys.path.insert(0, {str(package.parent)!r})\n{USE}"
    env = {key: value for key, value in os.environ.items() if key != "AUTOREID_FAST_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**env, **environment},
        cwd=package.parent,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split("|"), done.stderr.strip().splitlines()


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A copy of the package without native libraries."""
    copy = tmp_path / "autoreid_fast"
    return Path(shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.so")))


def native() -> list[Path]:
    files = [*PACKAGE.glob("libautoreid_fast_cpu.so"), *PACKAGE.glob("_cpu.*.so")]
    if not files:
        pytest.skip("no native library: pure-Python install")
    return files


def test_not_built(bare: Path) -> None:
    printed, logged = run(bare)
    assert printed == ["0.5", "False", "False", "not built"]
    assert len(logged) == 1
    assert "cpu library: not built" in logged[0]


def test_reference_is_silent(bare: Path) -> None:
    printed, logged = run(bare, AUTOREID_FAST_BACKEND="reference")
    assert printed == ["0.5", "False", "False", "AUTOREID_FAST_BACKEND=reference"]
    assert logged == []


def test_loads(bare: Path) -> None:
    for file in native():
        shutil.copy2(file, bare)
    assert run(bare) == (["0.5", "True", "True", ""], [])


def test_loads_without_its_python_module(bare: Path) -> None:
    native()
    shutil.copy2(PACKAGE / LIBRARY, bare)
    assert run(bare) == (["0.5", "True", "True", ""], [])


def test_damaged(bare: Path) -> None:
    for file in native():
        shutil.copy2(file, bare)
    (bare / LIBRARY).write_bytes(b"not a library")
    printed, logged = run(bare)
    assert printed[:3] == ["0.5", "True", "False"]
    assert len(logged) == 1
    assert f"does not load with torch {torch.__version__}" in logged[0]


def test_files_that_a_full_disk_cut_short(tmp_path: Path) -> None:
    """Found before the loader maps them, which would end the process by a bus error."""
    for file in native():
        assert not library._is_cut_short(file)
        content = file.read_bytes()
        for kept in (64, 4096, len(content) // 2, len(content) - 1):
            (tmp_path / file.name).write_bytes(content[:kept])
            assert library._is_cut_short(tmp_path / file.name), kept
    (tmp_path / "text.so").write_text("not a library\n" * 10)
    assert not library._is_cut_short(tmp_path / "text.so")


def test_built_for_another_torch(bare: Path) -> None:
    """A library that needs a symbol which this torch does not have."""
    compiler = shutil.which("g++")
    assert compiler
    source = bare / "other.cpp"
    source.write_text('extern "C" int torch_of_the_future(); int at_load = torch_of_the_future();')
    subprocess.run([compiler, "-shared", "-fPIC", source, "-o", bare / LIBRARY], check=True)
    printed, logged = run(bare)
    assert printed[:3] == ["0.5", "True", "False"]
    assert len(logged) == 1
    assert "torch_of_the_future" in logged[0]


def test_status_has_every_op_and_a_reason() -> None:
    status = ops.status()
    assert [each.device for each in status.libraries] == ["cpu", "cuda"]
    for each in status.libraries:
        assert each.loaded == (each.reason == "")
    assert {(op.op, op.device) for op in status.ops} >= {("batch_hard", "cpu"), ("batch_hard", "cuda")}
    for op in status.ops:
        assert (op.backend == "native") == (op.reason == "") == (op.kernel != "")
        assert (op.backend == "none") == (op.device == "cuda" and not torch.cuda.is_available())
    with ops.backend("reference"):
        assert {op.backend for op in ops.status().ops} == {"reference"}


def test_facts_of_the_build() -> None:
    native()
    (cpu, _) = ops.status().libraries
    assert cpu.loaded
    assert set(cpu.facts) == {"compiler", "instruction set in use", "instruction sets", "torch"}
    assert cpu.facts["instruction set in use"] in cpu.facts["instruction sets"].split()
