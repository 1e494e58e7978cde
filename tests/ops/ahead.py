"""Ahead-of-time compilation of Triton kernels, which fails on register spills and too much shared memory."""

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

ARCHS = (80, 90, 100) if os.environ.get("AUTOREID_FAST_LONG") == "1" else (90,)
"""Compute capabilities that every kernel is compiled for: one in the suite, all in `make triton`."""
SHARED_BYTES = {80: 166912, 90: 232448, 100: 232448}
"""Shared memory per block, at most."""
ALIGNED = [["tt.divisibility", 16]]


Part = str | int
"""Type of a number or pointer (":16" behind it: a multiple of 16), or its value where it is a constant."""


def compile_ahead(
    kernel: Any, types: Mapping[str, Part | tuple[Part, ...]], arch: int, **options: int
) -> str:
    """Compile ``kernel`` for sm_<arch> and return its PTX.

    Args:
        kernel: the `triton.jit` function.
        types: the type of every argument that is no `tl.constexpr`, or a tuple of them.
        arch: the compute capability, as 90.
        options: the constexpr arguments, and the options of the launch.

    Raises:
        AssertionError: the kernel uses the stack, or more shared memory than the GPU has.
    """
    signature: dict[str, Any] = {}
    constants = {name: options.pop(name) for name in kernel.arg_names if name in options}
    known: dict[Any, Any] = dict(constants)
    alignment = {}
    for i, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            continue
        kind = types[name]
        parts = kind if isinstance(kind, tuple) else (kind,)
        bare = []
        for j, part in enumerate(parts):
            path = (i, j) if isinstance(kind, tuple) else (i,)
            if isinstance(part, int):
                known[path] = part
            elif part.endswith(":16"):
                alignment[path] = ALIGNED
            bare.append("constexpr" if isinstance(part, int) else part.removesuffix(":16"))
        signature[name] = bare[0]
        if isinstance(kind, tuple):
            signature[name] = type(kind)(*bare) if hasattr(kind, "_fields") else tuple(bare)
    source = ASTSource(kernel, signature, known, alignment)
    binary = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    label = f"{kernel.__name__} on sm_{arch}"
    assert binary.metadata.shared <= SHARED_BYTES[arch], f"{label}: {binary.metadata.shared} bytes shared"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    resources = re.findall(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", usage)
    assert resources, usage
    assert all((stack, local) == ("0", "0") for _, stack, local in resources), f"{label} spills: {usage}"
    return str(binary.asm["ptx"])
