"""Fuzz the readers of tests/data/test_fuzz.py, led by coverage: `python tests/tools/fuzz.py NAME SECONDS`.

The targets are the properties' own bodies: hypothesis builds names and files from the fuzzer's bytes. What
reads them is instrumented, our code and the libraries'; all that they import (torch) would take minutes.
Inputs that lead to new coverage stay in build/fuzz/NAME, where the next run goes on; failures lie beside it.
"""

import os
import random
import signal
import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("market1501", "msmt17", "cuhk03", "folder", "config")
READERS = ["autoreid_fast", "h5py", "scipy.io.matlab", "tyro", "yaml"]
SEEDS, SEED_BYTES = 32, 1024  # hypothesis throws away inputs that end before its choices do


SIGNALS = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT)


def die_by_default() -> None:
    """A child that a reader starts may be killed by what it reads, which is no failure of the fuzzed one."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def main(name: str, seconds: str) -> None:
    sys.path.insert(0, str(ROOT / "tests" / "data"))
    with atheris.instrument_imports(include=READERS):
        import test_fuzz
    corpus = ROOT / "build" / "fuzz" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number in range(SEEDS):
        (corpus / f"seed-{number}").write_bytes(random.Random(number).randbytes(SEED_BYTES))
    options = [f"-max_total_time={seconds}", f"-artifact_prefix={corpus}-"]
    options += ["-len_control=0", f"-max_len={4 * SEED_BYTES}", "-print_final_stats=1"]
    os.register_at_fork(after_in_child=die_by_default)
    atheris.Setup(
        [sys.argv[0], *options, str(corpus)], getattr(test_fuzz, f"test_{name}").hypothesis.fuzz_one_input
    )
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in TARGETS:
        sys.exit(__doc__)
    main(*sys.argv[1:])
