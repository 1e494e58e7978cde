"""Items that need a process of their own: doctor, the GPU tests, compute-sanitizer and ncu."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

from autoreid_fast.errors import AutoReIDError

from . import steps
from .items import Figures, Setting

ROOT = Path(__file__).resolve().parents[3]
WORKERS = 10
TESTS_END = 95
"""Seconds after which the GPU tests are stopped, so that nothing is timed beside them."""
GRACE = 8
"""Seconds in which interrupted tests write their report."""
SANITIZERS = ("memcheck", "racecheck")
DRIVER = ROOT / "tests" / "native" / "gpu_batch_hard.cu"
HEAVIEST = ("separable_products", "stencil3x3_backward", "filter_grads", "combine_dots")
"""Kernels with the most time in the first measured step pair."""


def doctor(setting: Setting) -> Figures:
    """Whether the native libraries load; on a GPU both must.

    Raises:
        AutoReIDError: one does not.
    """
    from autoreid_fast import ops

    libraries = ops.status().libraries
    missing = [library for library in libraries if not library.loaded]
    if missing and setting.device == "cuda":
        reasons = "; ".join(f"{library.device}: {library.reason}" for library in missing)
        raise AutoReIDError(f"gpu run: a native library does not load ({reasons}): run `make gpu-pack` again")
    return {library.device: library.reason or "loaded" for library in libraries}


def tests_and_kernels(setting: Setting) -> Figures:
    """GPU tests in the background, while this process compiles the Triton kernels by an eager pair."""
    report = setting.out / "tests.xml"
    report.unlink(missing_ok=True)
    log = setting.out / "tests.txt"
    end = time.monotonic() + TESTS_END
    with log.open("w") as output:
        tests = subprocess.Popen(
            test_command(setting), cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            pair = steps.pair(setting, pairs=1, execution="eager")
            ended = _ended(tests, end - time.monotonic())
        finally:
            stop(tests)
    counts = counted(report) if report.is_file() else {}
    return {"ended": ended, **counts, "eager pair": pair["seconds"], "log": log.read_text()[-20_000:]}


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(max(1.0, seconds))
    except subprocess.TimeoutExpired:
        return False
    return True


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process of its own session: interrupted, so that pytest writes its report, then killed."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        _ended(process, GRACE)
    with suppress(ProcessLookupError):  # nobody is left of the session
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_command(setting: Setting) -> list[str]:
    """All tests marked `gpu`; at toy sizes they are only collected."""
    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*_gpu.py"))
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "-v"]
    command += ["--junitxml", str(setting.out.resolve() / "tests.xml")]
    if setting.toy:
        return [*command, "--collect-only", "-q", files[0]]
    return [*command, "-n", str(WORKERS), *files]


def counted(report: Path) -> Figures:
    """Counts of pytest's JUnit file, and the names of the tests that failed."""
    cases = list(ElementTree.parse(report).iter("testcase"))
    kinds = {f"{case.get('classname')}::{case.get('name')}": {child.tag for child in case} for case in cases}
    failed = [name for name, kind in kinds.items() if kind & {"failure", "error"}]
    skipped = [name for name, kind in kinds.items() if "skipped" in kind]
    passed = len(kinds) - len(failed) - len(skipped)
    return {"passed": passed, "failed": len(failed), "skipped": len(skipped), "failures": failed}


def sanitizers(setting: Setting) -> Figures:
    """compute-sanitizer over a driver that has no torch; where there is none, only the command lines."""
    program = setting.out / "gpu_batch_hard"
    commands = sanitizer_commands(program)
    figures: Figures = {"commands": [" ".join(command) for command in commands]}
    if setting.device == "cpu":
        return {**figures, "not done": "no GPU: nothing was compiled or checked"}
    _checked(compile_command(program))
    for tool, command in zip(SANITIZERS, commands, strict=True):
        done = subprocess.run(command, capture_output=True, text=True)
        figures[tool] = {"exit_status": done.returncode, "output": (done.stdout + done.stderr)[-3000:]}
    return figures


def compile_command(program: Path) -> list[str]:
    """nvcc for Hopper, with lines for the sanitizer's reports."""
    return [_tool("nvcc"), "-std=c++20", "-O2", "-lineinfo", "-arch=sm_90", str(DRIVER), "-o", str(program)]


def sanitizer_commands(program: Path) -> list[list[str]]:
    """One command per tool."""
    tool = _tool("compute-sanitizer")
    return [[tool, "--tool", name, "--error-exitcode", "9", str(program)] for name in SANITIZERS]


def profile_counters(setting: Setting) -> Figures:
    """ncu over the heaviest kernels of an eager pair, one launch each; on the CPU only the command lines."""
    commands = [ncu_command(kernel) for kernel in HEAVIEST]
    figures: Figures = {"commands": [" ".join(command) for command in commands]}
    if setting.device == "cpu":
        return {**figures, "not done": "no GPU: ncu did not run"}
    for kernel, command in zip(HEAVIEST, commands, strict=True):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        figures[kernel] = {"exit_status": done.returncode, "output": (done.stdout + done.stderr)[-8000:]}
    return figures


def ncu_command(kernel: str) -> list[str]:
    """ncu over the first launch of a kernel in one eager pair, which is stopped there."""
    chosen = ["--kernel-name", f"regex:{kernel}", "--launch-count", "1", "--kill", "yes"]
    sections = ["--section", "SpeedOfLight", "--section", "Occupancy", "--section", "MemoryWorkloadAnalysis"]
    step = [sys.executable, "-m", "autoreid_fast", "profile", "--device", "cuda", "--execution", "eager"]
    return [_tool("ncu"), "--clock-control", "none", *chosen, *sections, *step, "--pairs", "1"]


def _tool(name: str) -> str:
    """Path of a CUDA tool; its name where there is none, for a rehearsal."""
    home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin"
    return shutil.which(name) or shutil.which(name, path=str(home)) or name


def _checked(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise AutoReIDError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
