"""Launches without a GPU: they compile the kernel as on an H100 and stop there.

Ahead-of-time compilation states the types. A launch derives them from the arguments: a size of 1 becomes a
constant, and a multiple of 16 has another type than other numbers.
"""

from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction


class Hopper:
    """A driver with one H100 that runs nothing."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compile_only() -> None:
    """Make every launch of this process compile its kernel and return."""
    run = JITFunction.run

    def compiled(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        return run(self, *arguments, grid=grid, warmup=True, **options)

    triton.runtime.driver.set_active(Hopper())
    JITFunction.run = compiled
