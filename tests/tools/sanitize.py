"""Run the native code's tests under sanitizers: `python tests/tools/sanitize.py address`, `thread` or `gpu`.

address: the CPU library with AddressSanitizer and UndefinedBehaviorSanitizer under tests/ops, then the text
of the CUDA kernels on the CPU (tests/native/simt.h) under both. thread: the CPU library with ThreadSanitizer,
its parallel_for made of std::thread (csrc/thread_sanitizer.cpp), under tests/ops. gpu: compute-sanitizer's
memcheck, racecheck and initcheck over the GPU tests of the ops. What follows goes to pytest.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {
    # torch and Python keep memory to the end; exit at the first error
    "address": {"ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1", "UBSAN_OPTIONS": "print_stacktrace=1"},
    # what torch's own code does is not instrumented and not ours
    "thread": {"TSAN_OPTIONS": "ignore_noninstrumented_modules=1:halt_on_error=1:second_deadlock_stack=1"},
}
RUNTIMES = {"address": ("libasan.so", "libubsan.so"), "thread": ("libtsan.so",)}
# torch.compile starts compilers and workers; those of test_sync are processes: neither has threads of ours
UNTHREADED = [
    "-k",
    "not compile and not opcheck and not memory_is_bounded",
    "--ignore=tests/ops/test_sync.py",
]
GPU_TOOLS = ("memcheck", "racecheck", "initcheck")
# processes that a test starts (Triton's compilers) are followed, and need not use CUDA
GPU_OPTIONS = ("--target-processes", "all", "--require-cuda-init", "no")
FOUND = 9
# torch refuses to capture a graph without its caching allocator
UNCAPTURED = ("-k", "not capture")


def runtime(compiler: str, name: str) -> str:
    """The compiler's own file of this library."""
    done = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    if not Path(done.stdout.strip()).is_absolute():
        sys.exit(f"sanitize: {compiler} has no {name}: install GCC's sanitizer runtimes")
    return done.stdout.strip()


def build(sanitizer: str) -> Path:
    """The whole package with the sanitized CPU library, beside the normal one's build."""
    folder = ROOT / "build" / sanitizer
    command = [sys.executable, "setup.py", "-q", "build", "--build-lib", str(folder)]
    environment = {**os.environ, "AUTOREID_FAST_SANITIZE": sanitizer}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return folder


def run_cpu(sanitizer: str, tests: list[str]) -> int:
    """The tests against the sanitized library; the interpreter loads the sanitizer first."""
    compiler = os.environ.get("CXX", "g++")
    folder = build(sanitizer)
    libraries = [runtime(compiler, name) for name in (*RUNTIMES[sanitizer], "libstdc++.so.6")]
    environment = {
        **os.environ,
        **OPTIONS[sanitizer],
        "LD_PRELOAD": " ".join(libraries),
        "PYTHONPATH": str(folder),
        "PYTHONMALLOC": "malloc",
        "OMP_NUM_THREADS": "1",
    }
    library = folder / "autoreid_fast" / "libautoreid_fast_cpu.so"
    check = f"import autoreid_fast.ops; assert {str(library)!r} in open('/proc/self/maps').read()"
    for arguments in (["-c", check], ["-m", "pytest", "-p", "no:cacheprovider", *tests]):
        done = subprocess.run([sys.executable, "-P", *arguments], cwd=ROOT, env=environment)
        if done.returncode:
            return done.returncode
    return 0


def run_gpu(tests: list[str]) -> int:
    """Every tool of compute-sanitizer in turn, a line for each; 1 where one is not clean."""
    import torch

    home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    tool = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=str(home / "bin"))
    if not torch.cuda.is_available() or tool is None:
        missing = "compute-sanitizer" if torch.cuda.is_available() else "CUDA device"
        print(f"gpu-sanitize: no {missing} on this machine: nothing was checked")
        return 1
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "gpu", *tests]
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # every overrun leaves a block
    failed = False
    for name in GPU_TOOLS:
        command = [tool, "--tool", name, *GPU_OPTIONS, "--error-exitcode", str(FOUND), *pytest]
        status = subprocess.run(command, cwd=ROOT, env=environment).returncode
        verdict = {0: "clean", FOUND: "found something"}.get(status, f"ended with {status}: tests failed")
        print(f"gpu-sanitize: {name}: {verdict}", flush=True)
        failed |= status != 0
    return int(failed)


def main(kind: str, *tests: str) -> int:
    if kind == "gpu":
        every = [str(path) for path in sorted((ROOT / "tests/ops").rglob("test_*_gpu.py"))]
        return run_gpu(list(tests) or [*every, *UNCAPTURED])
    if kind == "thread":
        return run_cpu(kind, list(tests) or ["tests/ops", *UNTHREADED])
    failed = run_cpu("address", list(tests) or ["tests/ops"])
    if failed or tests:
        return failed
    harness = sorted((ROOT / "tests/ops").glob("*/test_simt_*.py"))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *harness], cwd=ROOT
    ).returncode


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ("address", "thread", "gpu"):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
