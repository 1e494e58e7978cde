"""The wheel has every file that the package reads when it runs, the sdist every file of the build."""

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
NOT_INSTALLED = ("benchmarks/results/", "benchmarks/gpu_run.sh")
"""Only in the repository: results, and a script that runs its tests."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the tree, because the build writes beside its sources."""
    copy = tmp_path / "source"
    unwanted = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
    for name in (*FOLDERS, "csrc"):
        shutil.copytree(ROOT / name, copy / name, ignore=unwanted)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


def build(kind: str, source: Path) -> Path:
    """Build a wheel or an sdist as pip and `python -m build` do, without the native library."""
    out = source.parent / kind
    out.mkdir()
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(out)!r})"
    environment = os.environ | {"AUTOREID_FAST_BACKEND": "reference"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = out.iterdir()
    return archive


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_wheel_has_every_file_of_the_package(source: Path) -> None:
    expected = {
        f"{inside}/{name}"
        for folder, inside in FOLDERS.items()
        for name in files_below(source / folder)
        if not f"{folder}/{name}".startswith(NOT_INSTALLED)
    }
    with zipfile.ZipFile(build("wheel", source)) as wheel:
        found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert found == expected
    suffixes = {Path(name).suffix for name in found}
    assert {".py", ".typed", ".yaml", ".html", ".css"} <= suffixes


def test_the_sdist_has_what_the_wheel_is_built_from(source: Path) -> None:
    expected = {f"csrc/{name}" for name in files_below(source / "csrc")}
    expected |= {f"{folder}/{name}" for folder in FOLDERS for name in files_below(source / folder)}
    expected = {name for name in expected if not name.startswith(NOT_INSTALLED)} | {
        "setup.py",
        "pyproject.toml",
        "LICENSE",
    }
    with tarfile.open(build("sdist", source)) as sdist:
        found = {name.partition("/")[2] for name in sdist.getnames()}
    assert expected <= found, sorted(expected - found)
