"""Compile the kernel of batch_from_cache for sm_<argument>, in a process without the interpreter."""

import re
import sys

from ahead import compile_ahead

from autoreid_fast.kernels import batch_from_cache as kernels

if __name__ == "__main__":
    for element in ("fp32", "bf16"):
        types = dict.fromkeys(("index", "y", "x"), "*i64:16")
        types |= {"images": "*u8:16", "flip": "*i1:16", "out": f"*{element}:16", "count": "i32"}
        constants = {
            "HEIGHT": 384,
            "WIDTH": 128,
            "MEAN": kernels.IMAGENET_MEAN,
            "STD": kernels.IMAGENET_STD,
            "TILE": kernels.ELEMENTS,
        }
        ptx = compile_ahead(
            kernels.gather_normalized, types, constants, int(sys.argv[1]), num_warps=kernels.WARPS
        )
        assert re.search(r"st\.global\.v[24]\.b32", ptx), "does not store by vectors"
        assert "div.rn.f32" in ptx, "the divisions are not rounded to nearest"
