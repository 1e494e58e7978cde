"""Pack what a GPU machine without a network lacks: `python -m autoreid_fast.benchmarks.harness.gpu.pack`.

build/gpu-pack gets both native libraries, the Python packages for Python 3.12 that an image with torch lacks
(in the versions of this environment), and synthetic images for a short search. The sources are the tree.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from .tools import ROOT

PACK = ROOT / "build" / "gpu-pack"
PACKAGES = (
    "pydantic",
    "pydantic-core",
    "annotated-types",
    "typing-extensions",
    "typing-inspection",
    "tyro",
    "docstring-parser",
    "typeguard",
    "filelock",
)
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
LIBRARIES = ("libautoreid_fast_cpu.so", "libautoreid_fast_cuda.so")
LIMIT = 64 << 20
"""Bytes that travel to the machine, the tree included."""
COMMAND = 'set -o pipefail; benchmarks/gpu_run.sh first 2>&1 | tee "$OUT/first.log"'


def main() -> int:
    """Make the folder anew, print its size and how to run. Returns 1 if it is too large with the tree."""
    shutil.rmtree(PACK, ignore_errors=True)
    PACK.mkdir(parents=True)
    environment = {**os.environ, "AUTOREID_FAST_CUDA": "1"}
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(build, cwd=ROOT, env=environment, check=True)
    for library in LIBRARIES:
        shutil.copy(ROOT / "autoreid_fast" / library, PACK)
    subprocess.run(install_command(), check=True)
    synth = [sys.executable, "-m", "autoreid_fast", "data", "synth", str(PACK / "pedestrians")]
    subprocess.run(synth, check=True)
    pack, tree = size(PACK.rglob("*")), size(tracked())
    print(f"{PACK.relative_to(ROOT)}: {pack / 1e6:.1f} MB, with the tree {(pack + tree) / 1e6:.1f} MB")
    print(f"run, with {PACK.relative_to(ROOT)} carried along and 420 s: {COMMAND}")
    return int(pack + tree > LIMIT)


def install_command() -> list[str]:
    """pip: the packages, unpacked, for another Python than this one."""
    names = [f"{name}=={importlib.metadata.version(name)}" for name in PACKAGES]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    options = ["--no-deps", "--only-binary=:all:", "--python-version", "3.12", *platforms]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--disable-pip-version-check"]
    return [*pip, *options, "--target", str(PACK / "site"), *names]


def tracked() -> list[Path]:
    """The files of the tree that travel."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.splitlines()]


def size(paths: Iterable[Path]) -> int:
    """Bytes of the files among ``paths``."""
    return sum(path.stat().st_size for path in paths if path.is_file())


if __name__ == "__main__":
    sys.exit(main())
