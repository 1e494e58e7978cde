"""Compile every kernel of part_attention for the GPUs of `ARCHS`, in a process without the interpreter."""

import itertools
import re
from typing import Any

from ahead import ARCHS, compile_ahead

from autoreid_fast.kernels import part_attention as kernels
from autoreid_fast.kernels.part_attention import backward, forward
from autoreid_fast.kernels.part_attention.backward import Matrices

FORWARD = ("strip_means", "project", "scale_and_shift", "attend")
BACKWARD = ("attend_backward", "project_backward", "mean_grads", "spread_grads", "weight_grads")
PIXELS = ("strip_means", "spread_grads")
OF_X = ("x_ptr", "grad_x_ptr", "strip_bias_ptr", "grad_ptr")
"""Tensors of the dtype of x; in the kernels that have them, all others are float32."""
SIZES = (
    "images", "height", "width", "channels", "edges", "hidden", "out_channels", "strip_count", "rows",
    "columns", "depth",
)  # fmt: skip


def check(kernel: Any, arch: int, element: str, flag: bool) -> None:
    name, arguments = kernel.__name__, kernel.arg_names
    options = {"num_warps": 1 if name == "scale_and_shift" else kernels.WARPS}
    if "BLOCK_ROWS" in arguments or name == "weight_grads":
        options["num_stages"] = kernels.STAGES
    constants = {
        "BLOCK_ROWS": kernels.BLOCK_ROWS,
        "BLOCK_COLUMNS": kernels.BLOCK_COLUMNS,
        "BLOCK_PIXELS": kernels.BLOCK_PIXELS,
        "INNER": 4 if flag else 1,
        **dict.fromkeys(("RELU", "RELU_PART", "BATCH_STATISTICS", "HAS_AFFINE", "HAS_BIAS"), flag),
    }
    types: dict[str, Any] = dict.fromkeys(arguments, "*fp32:16") | dict.fromkeys(SIZES, "i32")
    types |= {"eps": "fp32"}
    if name == "weight_grads":
        types |= {"a": Matrices(f"*{element}:16", "i32", "i32", "i32")}
        types |= {"b": Matrices("*fp32:16", "i32", "i32", "i32")}
    else:
        types |= dict.fromkeys(OF_X, f"*{element}:16")
    if name in PIXELS:
        types["channels"] = "i32:16"
    ptx = compile_ahead(
        kernel, types, arch, **{key: value for key, value in constants.items() if key in arguments}, **options
    )
    assert not re.search(r"\b(atom|red)\.", ptx), f"{name}: with atomics, sums depend on their order"
    assert "tf32" not in ptx, f"{name}: products must be in float32"
    if name in PIXELS:
        assert re.search(r"(ld|st)\.global\.v[24]\.b32", ptx), f"{name} does not move vectors"


if __name__ == "__main__":
    kernels_of_op = [getattr(forward, name) for name in FORWARD]
    kernels_of_op += [getattr(backward, name) for name in BACKWARD]
    for arch, kernel, flag in itertools.product(ARCHS, kernels_of_op, (False, True)):
        check(kernel, arch, "bf16" if flag else "fp32", flag)
