"""Compile every kernel of part_attention for sm_<argument>, in a process without the interpreter."""

import itertools
import re
import sys

from ahead import compile_ahead

from autoreid_fast.kernels import part_attention as host
from autoreid_fast.kernels.part_attention import backward as back
from autoreid_fast.kernels.part_attention import forward as forth

OF_X = {"strip_means": "x", "spread": "grad_x", "attend": "bias", "attend_back": "grad", "weight_grads": "a"}
"""What has the dtype of x in a kernel; all else is float32."""
SIZES = (
    *(
        "images",
        "height",
        "width",
        "channels",
        "edges",
        "hidden",
        "out_channels",
        "strips",
        "rows",
        "columns",
    ),
    *("depth", "a_row", "b_row", "a_outer", "a_inner", "b_outer", "b_inner"),
)


def check(kernel: object, arch: int, element: str, flag: bool) -> None:
    name, arguments = kernel.__name__, kernel.arg_names
    constants = {"ROWS": host.ROWS, "BLOCK": host.BLOCK, "PIXELS": host.PIXELS, "INNER": 4 if flag else 1}
    constants |= dict.fromkeys(("RELU", "BATCH", "HAS_AFFINE", "HAS_BIAS"), flag)
    types = dict.fromkeys(arguments, "*fp32:16") | dict.fromkeys(SIZES, "i32") | {"eps": "fp32"}
    if name in ("strip_means", "spread"):
        types["channels"] = "i32:16"
    if name in OF_X:
        types[OF_X[name]] = f"*{element}:16"
    options = {"num_warps": 1 if name == "scale_and_shift" else host.WARPS}
    if "ROWS" in arguments or name == "weight_grads":
        options["num_stages"] = host.STAGES
    constants = {key: value for key, value in constants.items() if key in arguments}
    ptx = compile_ahead(kernel, types, constants, arch, **options)
    assert not re.search(r"\b(atom|red)\.", ptx), f"{name}: atomics make sums depend on their order"
    assert "tf32" not in ptx, f"{name}: products must be in fp32"
    if name in ("strip_means", "spread"):
        assert re.search(r"(ld|st)\.global\.v[24]\.b32", ptx), f"{name} does not move vectors"


if __name__ == "__main__":
    arch = int(sys.argv[1])
    names = ("strip_means", "project", "scale_and_shift", "attend")
    kernels = [getattr(forth, name) for name in names]
    names = ("attend_back", "project_back", "mean_grads", "spread", "weight_grads")
    kernels += [getattr(back, name) for name in names]
    for kernel, flag in itertools.product(kernels, (False, True)):
        check(kernel, arch, "bf16" if flag else "fp32", flag)
