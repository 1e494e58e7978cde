"""Wheel and sdist hold all that the package reads when it runs, and all that it is built of."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "autoreid_fast": "autoreid_fast",
    "kernels": "autoreid_fast/kernels",
    "benchmarks": "autoreid_fast/benchmarks",
}
NO_PART = ("benchmarks/results/", "benchmarks/gpu.sh")
"""Of the repository alone: figures, and a script that runs its tests."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the tree, as the build writes beside its sources."""
    copy = tmp_path / "source"
    unwanted = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
    for name in (*FOLDERS, "csrc"):
        shutil.copytree(ROOT / name, copy / name, ignore=unwanted)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


def build(kind: str, source: Path) -> Path:
    """What the build backend makes, as pip and `python -m build` call it; without the native library."""
    out = source.parent / kind
    out.mkdir()
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})"
    environment = os.environ | {"AUTOREID_FAST_BACKEND": "reference"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.iterdir()
    return made


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_wheel_holds_every_file_of_the_package(source: Path) -> None:
    expected = {
        f"{inside}/{name}"
        for folder, inside in FOLDERS.items()
        for name in files_below(source / folder)
        if not f"{folder}/{name}".startswith(NO_PART)
    }
    with zipfile.ZipFile(build("wheel", source)) as wheel:
        found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert found == expected
    suffixes = {Path(name).suffix for name in found}
    assert {".py", ".typed", ".yaml", ".html", ".css"} <= suffixes


def test_the_sdist_holds_what_the_wheel_is_built_of(source: Path) -> None:
    expected = {f"csrc/{name}" for name in files_below(source / "csrc")}
    expected |= {f"{folder}/{name}" for folder in FOLDERS for name in files_below(source / folder)}
    expected = {name for name in expected if not name.startswith(NO_PART)} | {
        "setup.py",
        "pyproject.toml",
        "LICENSE",
    }
    with tarfile.open(build("sdist", source)) as sdist:
        found = {name.partition("/")[2] for name in sdist.getnames()}
    assert expected <= found, sorted(expected - found)
