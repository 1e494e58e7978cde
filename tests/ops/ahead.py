"""Compiling Triton kernels for GPUs that are not here, and failing where one spills or wants too much."""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

ARCHS = (80, 90, 100)
SHARED_BYTES = {80: 166912, 90: 232448, 100: 232448}
"""What a block may have at most."""
ALIGNED = [["tt.divisibility", 16]]


def compile_ahead(
    kernel: Any, types: Mapping[str, Any], constants: Mapping[str, Any], arch: int, **options: int
) -> str:
    """Compile one kernel for sm_<arch> and return its PTX.

    ``types``: "*fp32", "i32" or a tuple of these for each argument that is no constant; ":16" behind a type
    says that the pointer or the integer is a multiple of 16. ``options`` are those of the launch.

    Raises AssertionError where the kernel uses the stack or more shared memory than the GPU has.
    """
    signature, alignment = {}, {}
    for i, name in enumerate(kernel.arg_names):
        kind = "constexpr" if name in constants else types[name]
        parts = {(i, j): part for j, part in enumerate(kind)} if isinstance(kind, tuple) else {(i,): kind}
        bare = [part.removesuffix(":16") for part in parts.values()]
        signature[name] = tuple(bare) if isinstance(kind, tuple) else bare[0]
        alignment.update({at: ALIGNED for at, part in parts.items() if part.endswith(":16")})
    source = ASTSource(kernel, signature, dict(constants), alignment)
    binary = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    label = f"{kernel.__name__} on sm_{arch}"
    assert binary.metadata.shared <= SHARED_BYTES[arch], f"{label}: {binary.metadata.shared} bytes shared"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", usage)
    assert found, usage
    assert all((stack, local) == ("0", "0") for _, stack, local in found), f"{label} spills: {usage}"
    return str(binary.asm["ptx"])
