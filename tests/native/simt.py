"""Programs that run device code on the CPU (simt.h), compiled once per content for all test processes."""

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "simt"
FLAGS = ("-std=c++20", "-Og", "-g1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def compiled(source: Path, *, sanitized: bool) -> Path:
    """Compile a test program, or reuse the one that was compiled from the same files.

    Args:
        source: `simt_<op>.cpp`, which includes device code from csrc/.
        sanitized: with AddressSanitizer and UndefinedBehaviorSanitizer.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("the device code runs on the CPU only where there is a g++")
    command = [compiler, *FLAGS, *(SANITIZERS if sanitized else ())]
    kind = f"{source.stem}-sanitized" if sanitized else f"{source.stem}-plain"
    program = BUILD / f"{kind}-{_digest(source, command)}"
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            for outdated in BUILD.glob(f"{kind}-*"):
                outdated.unlink()
            unfinished = program.with_suffix(".unfinished")
            subprocess.run([*command, source, "-o", unfinished], check=True)
            unfinished.rename(program)
    return program


def run(program: Path, cases: Iterable[bytes]) -> bytes:
    """Output of the program for these cases."""
    done = subprocess.run([program], input=b"".join(cases), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return done.stdout


def _digest(source: Path, command: list[str]) -> str:
    headers = [*ROOT.glob("csrc/*/*.h"), *ROOT.glob("csrc/*/*.cuh"), *Path(__file__).parent.glob("*.h")]
    content = hashlib.sha256(" ".join(command).encode())
    for path in (source, *sorted(headers)):
        content.update(path.read_bytes())
    return content.hexdigest()[:16]
