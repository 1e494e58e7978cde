"""Compile what cases have for torch.compile and Triton, in processes side by side: ``python -m ... CASE``.

Both keep what they made on disk, so that the one process that measures then finds it there.
"""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

from .case import find
from .parity import prepare


def one(name: str, index: int) -> None:
    """Run every candidate of a variant once; what fails will say so when it is measured."""
    [case] = find([name])
    prepare(case, case.variants[index])


def main(names: list[str]) -> None:
    """All CUDA variants of these cases that have something to compile."""
    work = [
        (case.name, index)
        for case in find(names)
        for index, variant in enumerate(case.variants)
        if case.compiles and variant.device == "cuda" and variant.available
    ]
    workers = max(1, min(len(work), (os.cpu_count() or 2) - 1))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        done = [pool.submit(one, *each) for each in work]
    failed = sum(each.exception() is not None for each in done)
    print(f"compiled {len(work) - failed} of {len(work)} variants ahead")


if __name__ == "__main__":
    main(sys.argv[1:])
