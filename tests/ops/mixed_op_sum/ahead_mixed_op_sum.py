"""Compile every kernel of mixed_op_sum for sm_<argument>, in a process without the interpreter."""

import itertools
import re
import sys

from ahead import compile_ahead

from autoreid_fast.kernels import mixed_op_sum as kernels

POINTERS = ("statistics", "weights", "used", "partial", "coefficients", "grad_weights")


def check(name: str, arch: int, element: str, last: bool, count: int) -> None:
    kernel = getattr(kernels, name)
    block = kernels.MAX_CHANNELS if last else 1
    maps = name in ("weighted_sum", "candidate_grads")
    constants = {
        "KINDS": tuple(0 if k % 6 == 5 else 1 for k in range(count)),
        "COUNT": count,
        "AT_ONCE": kernels.AT_ONCE,
        "WANTED": tuple(range(count)),
        "WANTED_COUNT": count,
        "TILE": (kernels.MAP_ELEMENTS if maps else kernels.REDUCE_ELEMENTS) // block,
        "BLOCK": kernels.MAX_CHANNELS if name.startswith("combine") else block,
        "ROWS": kernels.REDUCE_ELEMENTS // kernels.MAX_CHANNELS,
        "stride_channel" if last else "stride_position": 1,
    }
    pointer = f"*{element}:16"
    types = dict.fromkeys(kernel.arg_names, "i32:16") | dict.fromkeys(POINTERS, "*fp32:16")
    types |= {"tiles": "i32"}
    types |= {
        "candidates": (pointer,) * count,
        "grads": (pointer,) * count,
        "grad": pointer,
        "total": pointer,
    }
    types |= {"eps": "fp32"}
    ptx = compile_ahead(
        kernel,
        types,
        {key: value for key, value in constants.items() if key in kernel.arg_names},
        arch,
        num_warps=kernels.MAP_WARPS if maps else kernels.REDUCE_WARPS,
    )
    assert re.search(r"ld\.global\.v[24]\.b32", ptx), f"{name} does not load by vectors"
    assert not re.search(r"\b(atom|red)\.", ptx), f"{name}: atomics make sums depend on their order"


if __name__ == "__main__":
    arch = int(sys.argv[1])
    names = (
        "partial_moments",
        "combine_moments",
        "weighted_sum",
        "partial_dots",
        "combine_dots",
        "candidate_grads",
    )
    for name, last in itertools.product(names, (False, True)):
        check(name, arch, "bf16" if last else "fp32", last, 6)
    # As many candidates as a node has: the kernel whose loads do not wait for each other.
    check("weighted_sum", arch, "fp32", True, 30)
