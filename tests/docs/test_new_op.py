"""Blocks of docs/develop/new-op.md, applied to a copy of the package, make an op that meets the contract."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from autoreid_fast.ops.library import status

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "develop" / "new-op.md").read_text()
FILES = dict(re.findall(r"^```(?:python|cpp)\n(?:#|//) (\S+/\S+)\n(.*?)^```$", PAGE, re.M | re.S))
KERNEL = "csrc/row_mean/row_mean_cpu.cpp"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with the page's files, and their kernel in a library of its own."""
    if not status().libraries[0].loaded:
        pytest.skip("no native library: pure-Python install")
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(
        ROOT / "autoreid_fast",
        root / "autoreid_fast",
        ignore=shutil.ignore_patterns("__pycache__", "*cuda*.so"),
    )
    for name in ("benchmarks", "kernels"):
        (root / "autoreid_fast" / name).symlink_to(ROOT / name)
    (root / "tests" / "ops").mkdir(parents=True)
    for name in ("conftest.py", "test_contract.py", "test_refusals.py"):
        shutil.copy(ROOT / "tests" / "ops" / name, root / "tests" / "ops")
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    compile_kernel(root)
    # as if it were in the package's library: loaded before the ops are imported
    (root / "load_kernel.py").write_text(f"import torch\ntorch.ops.load_library('{root}/librow_mean.so')\n")
    return root


def compile_kernel(root: Path) -> None:
    """Compile as `make setup` does, without the other kernels."""
    folder = Path(torch.__file__).parent
    flags = ["-std=c++20", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", "-Wno-psabi"]
    target = ["-DTORCH_TARGET_VERSION=0x020b000000000000ULL", "-isystem", folder / "include"]
    libraries = [f"-L{folder / 'lib'}", "-ltorch_cpu", "-lc10"]
    command = [os.environ.get("CXX", "g++"), *flags, *target, root / KERNEL, "-o", root / "librow_mean.so"]
    subprocess.run([*command, *libraries], check=True)


def run(root: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_page_has_one_folder_of_each_kind() -> None:
    folders = {str(Path(name).parent) for name in FILES}
    assert folders == {"autoreid_fast/ops/row_mean", "csrc/row_mean", "tests/ops/row_mean"}


def test_the_op_meets_the_contract(copy: Path) -> None:
    plugins = ["-p", "load_kernel", "-p", "no:cacheprovider", "--import-mode=importlib"]
    printed = run(copy, "-m", "pytest", "-q", *plugins, "-k", "row_mean", "tests")
    passed = int(re.findall(r"(\d+) passed", printed)[0])
    assert passed >= 8, printed  # parity by each instruction set, opcheck, one graph, refusals, its own


def test_the_op_has_its_kernel_and_its_row_in_doctor(copy: Path) -> None:
    code = "import load_kernel, sys; from autoreid_fast.cli import main; sys.exit(main(['doctor']))"
    (row,) = [line for line in run(copy, "-c", code).splitlines() if line.strip().startswith("row_mean")]
    assert row.split()[1] == "C++"


def test_setup_finds_the_kernel(copy: Path) -> None:
    shutil.copy(ROOT / "setup.py", copy)
    code = "import setup; print(*sorted(setup.SOURCES.glob('*/*_cpu.cpp')))"
    assert KERNEL in run(copy, "-c", f"import setuptools; setuptools.setup = lambda **_: None; {code}")
