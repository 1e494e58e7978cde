"""The readers of tests/data/test_fuzz.py under atheris, led by coverage: `python tests/fuzz.py NAME SECONDS`.

The targets are the properties' own bodies: hypothesis builds names and files from the fuzzer's bytes. What
reads them is instrumented, our code and the libraries'; all that they import (torch) would take minutes.
Inputs that lead to new coverage stay in build/fuzz/NAME, where the next run goes on; what fails is beside it.
"""

import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[1]
TARGETS = ("market1501", "msmt17", "cuhk03", "folder", "config")
READERS = ["autoreid_fast", "h5py", "scipy.io.matlab", "tyro", "yaml"]


def main(name: str, seconds: str) -> None:
    sys.path.insert(0, str(ROOT / "tests" / "data"))
    with atheris.instrument_imports(include=READERS):
        import test_fuzz
    corpus = ROOT / "build" / "fuzz" / name
    corpus.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-artifact_prefix={corpus}-",
        "-print_final_stats=1",
        str(corpus),
    ]
    atheris.Setup([sys.argv[0], *options], getattr(test_fuzz, f"test_{name}").hypothesis.fuzz_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in TARGETS:
        sys.exit(__doc__)
    main(*sys.argv[1:])
