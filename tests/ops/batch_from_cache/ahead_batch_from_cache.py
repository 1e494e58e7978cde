"""Compile the kernel of batch_from_cache for the GPUs of `ARCHS`, in a process without the interpreter."""

import itertools
import re

from ahead import ARCHS, compile_ahead

from autoreid_fast.kernels import batch_from_cache as kernels

if __name__ == "__main__":
    for arch, element in itertools.product(ARCHS, ("fp32", "bf16")):
        types = dict.fromkeys(("index_ptr", "y_ptr", "x_ptr"), "*i64:16")
        types |= {"images_ptr": "*u8:16", "flip_ptr": "*i1:16", "out_ptr": f"*{element}:16", "count": "i32"}
        ptx = compile_ahead(
            kernels.gather_normalized,
            types,
            arch,
            HEIGHT=384,
            WIDTH=128,
            MEAN=kernels.IMAGENET_MEAN,
            STD=kernels.IMAGENET_STD,
            BLOCK_VALUES=kernels.BLOCK_VALUES,
            num_warps=kernels.WARPS,
        )
        assert re.search(r"st\.global\.v[24]\.b32", ptx), "does not store vectors"
        assert "div.rn.f32" in ptx, "the divisions are not rounded to nearest"
