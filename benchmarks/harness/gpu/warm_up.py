"""Warm-up of `torch.compile` and Triton in parallel processes: ``python -m ... CASE``.

Both cache what they compile on disk, where the single process that measures finds it.
"""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

from ..case import find
from ..parity import prepare


def warm_up(name: str, index: int) -> None:
    """Run every candidate of a variant once; failures are reported when they are measured."""
    [case] = find([name])
    prepare(case, case.variants[index])


def main(names: list[str]) -> None:
    """Warm up all CUDA variants of these cases that have something to compile."""
    work = [
        (case.name, index)
        for case in find(names)
        for index, variant in enumerate(case.variants)
        if case.compiles and variant.device == "cuda" and variant.available
    ]
    workers = max(1, min(len(work), (os.cpu_count() or 2) - 1))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(warm_up, name, index) for name, index in work]
    failed = sum(future.exception() is not None for future in futures)
    print(f"compiled {len(work) - failed} of {len(work)} variants ahead")


if __name__ == "__main__":
    main(sys.argv[1:])
