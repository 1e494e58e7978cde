"""Compile every kernel of separable_conv for the GPUs of `ARCHS`, in a process without the interpreter."""

import re
from typing import Any

from ahead import ARCHS, compile_ahead

from autoreid_fast.kernels import separable_conv as kernels
from autoreid_fast.kernels.separable_conv.depthwise import Sizes

TENSORS = ("x_ptr", "depthwise_ptr", "pointwise_ptr", "z_ptr", "grad_ptr", "grad_filtered_ptr")
SIZES = Sizes(
    pixels="i32",
    height="i32",
    width="i32",
    out_height="i32",
    out_width="i32",
    channels="i32:16",
    out_channels="i32:16",
    stride="i32",
)


def check(kernel: Any, arch: int, element: str, **options: int) -> None:
    types = dict.fromkeys(kernel.arg_names, "i32") | dict.fromkeys(TENSORS, f"*{element}:16")
    types |= {"out_channels": "i32:16", "sizes": SIZES}
    types |= dict.fromkeys(("partial_ptr", "statistics_ptr"), "*fp32:16")
    ptx = compile_ahead(kernel, types, arch, **options)
    assert re.search(r"ld\.global\.v[24]\.b32", ptx), "does not load vectors"
    assert not re.search(r"\b(atom|red)\.", ptx), "with atomics, sums depend on their order"


def check_all(arch: int) -> None:
    # Every block of channels that 16, 32, 64, 128 and 256 of them are cut into.
    blocks = {kernels.out_block(channels) for channels in (16, 32, 64, 128, 256)}
    for element, outs in (("fp32", sorted(blocks)), ("bf16", [32])):
        for out in outs:
            check(
                kernels.separable_products,
                arch,
                element,
                STATISTICS=True,
                BLOCK_PIXELS=kernels.BLOCK_PIXELS,
                BLOCK_CHANNELS=kernels.BLOCK_CHANNELS,
                BLOCK_OUT=out,
                num_warps=kernels.WARPS,
                num_stages=1,
                maxnreg=kernels.REGISTERS,
            )
            check(
                kernels.filter_grads,
                arch,
                element,
                FUSED=out <= kernels.MAX_FUSED_OUT,
                BLOCK_PIXELS=kernels.BLOCK_PIXELS,
                BLOCK_CHANNELS=kernels.GRAD_BLOCK_CHANNELS,
                BLOCK_OUT=out,
                num_warps=kernels.GRAD_WARPS,
                num_stages=1,
                maxnreg=kernels.GRAD_REGISTERS,
            )
    check(
        kernels.merge_statistics,
        arch,
        "fp32",
        TILE=kernels.BLOCK_PIXELS,
        BLOCK_TILES=kernels.MERGE_BLOCK_TILES,
        BLOCK_OUT=kernels.MERGE_BLOCK_OUT,
        num_warps=kernels.MERGE_WARPS,
    )


if __name__ == "__main__":
    for arch in ARCHS:
        check_all(arch)
