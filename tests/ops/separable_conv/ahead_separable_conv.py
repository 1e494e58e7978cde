"""Compile every kernel of separable_conv for sm_<argument>, in a process without the interpreter."""

import re
import sys
from typing import Any

from ahead import compile_ahead

from autoreid_fast.kernels import separable_conv as kernels

TENSORS = ("x", "depthwise", "pointwise", "z", "grad", "grad_filtered")


def check(kernel: Any, arch: int, element: str, constants: dict[str, Any], **options: int) -> None:
    types = dict.fromkeys(kernel.arg_names, "i32") | dict.fromkeys(TENSORS, f"*{element}:16")
    types |= dict.fromkeys(("channels", "out_channels"), "i32:16")
    types |= dict.fromkeys(("partial", "statistics"), "*fp32:16")
    ptx = compile_ahead(kernel, types, constants, arch, **options)
    assert re.search(r"ld\.global\.v[24]\.b32", ptx), "does not load by vectors"
    assert not re.search(r"\b(atom|red)\.", ptx), "atomics make sums depend on their order"


if __name__ == "__main__":
    arch = int(sys.argv[1])
    tile = {"TILE": kernels.TILE}
    # Every block of channels that 16, 32, 64, 128 and 256 of them are cut into.
    blocks = {kernels.out_block(channels) for channels in (16, 32, 64, 128, 256)}
    for element, outs in (("fp32", sorted(blocks)), ("bf16", [32])):
        for out in outs:
            check(
                kernels.separable_products,
                arch,
                element,
                {**tile, "STATISTICS": True, "BLOCK": kernels.CHANNELS, "OUT": out},
                num_warps=kernels.WARPS,
                num_stages=1,
                maxnreg=kernels.REGISTERS,
            )
            check(
                kernels.filter_grads,
                arch,
                element,
                {**tile, "FUSED": out <= kernels.MAX_FUSED_OUT, "BLOCK": kernels.GRAD_CHANNELS, "OUT": out},
                num_warps=kernels.GRAD_WARPS,
                num_stages=1,
                maxnreg=kernels.GRAD_REGISTERS,
            )
    check(
        kernels.merge_statistics,
        arch,
        "fp32",
        {**tile, "ROWS": kernels.MERGE_ROWS, "BLOCK": kernels.MERGE_CHANNELS},
        num_warps=kernels.MERGE_WARPS,
    )
