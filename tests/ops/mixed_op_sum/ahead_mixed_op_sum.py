"""Compile every kernel of mixed_op_sum for the GPUs of `ARCHS`, in a process without the interpreter."""

import itertools
import re
from typing import Any

from ahead import ARCHS, compile_ahead

from autoreid_fast.kernels import mixed_op_sum as kernels
from autoreid_fast.kernels.mixed_op_sum.tiles import Geometry

FLOATS = ("statistics_ptr", "weights_ptr", "used_ptr", "partial_ptr", "coefficients_ptr", "grad_weights_ptr")
MAPS = (kernels.weighted_sum, kernels.candidate_grads)
COMBINES = (kernels.combine_moments, kernels.combine_dots)
KERNELS = (
    kernels.partial_moments,
    kernels.combine_moments,
    kernels.weighted_sum,
    kernels.partial_dots,
    kernels.combine_dots,
    kernels.candidate_grads,
)


def check(kernel: Any, arch: int, element: str, channels_last: bool, count: int) -> None:
    pointer, size = f"*{element}:16", "i32:16"
    block = kernels.MAX_BLOCK_CHANNELS if channels_last else 1
    elements = kernels.MAP_ELEMENTS if kernel in MAPS else kernels.REDUCE_ELEMENTS
    constants = {
        "KINDS": tuple(0 if k % 6 == 5 else 1 for k in range(count)),
        "COUNT": count,
        "UNROLL": kernels.UNROLL,
        "WANTED": tuple(range(count)),
        "WANTED_COUNT": count,
        "TILE": elements // block,
        "BLOCK_POSITIONS": elements // block,
        "BLOCK_CHANNELS": kernels.MAX_BLOCK_CHANNELS if kernel in COMBINES else block,
        "BLOCK_TILES": kernels.REDUCE_ELEMENTS // kernels.MAX_BLOCK_CHANNELS,
    }
    geometry = Geometry(
        positions=size,
        size=size,
        channels=size,
        stride_image=size,
        stride_channel=1 if channels_last else size,
        stride_position=size if channels_last else 1,
    )
    types = dict.fromkeys(("size", "channels"), size) | dict.fromkeys(FLOATS, "*fp32:16")
    types |= {"tiles": "i32", "eps": "fp32", "grad_ptr": pointer, "total_ptr": pointer}
    types |= {"candidate_ptrs": (pointer,) * count, "grad_ptrs": (pointer,) * count, "geometry": geometry}
    ptx = compile_ahead(
        kernel,
        types,
        arch,
        **{name: value for name, value in constants.items() if name in kernel.arg_names},
        num_warps=kernels.MAP_WARPS if kernel in MAPS else kernels.REDUCE_WARPS,
    )
    name = kernel.__name__
    assert re.search(r"ld\.global\.v[24]\.b32", ptx), f"{name} does not load vectors"
    assert not re.search(r"\b(atom|red)\.", ptx), f"{name}: with atomics, sums depend on their order"


if __name__ == "__main__":
    for arch in ARCHS:
        for kernel, channels_last in itertools.product(KERNELS, (False, True)):
            check(kernel, arch, "bf16" if channels_last else "fp32", channels_last, 6)
        # As many candidates as a node has: the kernel that must not issue all loads at once.
        check(kernels.weighted_sum, arch, "fp32", True, 30)
