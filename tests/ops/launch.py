"""Compile every kernel of op <argument> as a launch would, without launching it; in a process of its own.

Ahead-of-time compilation states the types. Here Triton derives them from the arguments: a size of 1 becomes a
constant, and a multiple of 16 has another type than other numbers.
"""

import sys
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from autoreid_fast import ops
from autoreid_fast.kernels import batch_from_cache, mixed_op_sum, part_attention, separable_conv

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
LAST = torch.channels_last


class Hopper:
    """A driver with one H100 that runs nothing."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


run = JITFunction.run


def compiled_only(self: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> Any:
    return run(self, *arguments, grid=grid, warmup=True, **options)


def launch_mixed_op_sum() -> None:
    for shape, kinds, dtype, layout in (
        ((2, 1, 1, 1), [1], F32, torch.contiguous_format),
        ((4, 32, 3, 2), [2], F32, LAST),
        ((3, 33, 13, 7), [1, 0, 2, 3], BF16, LAST),
    ):
        z = [torch.randn(shape).to(dtype).contiguous(memory_format=layout) for _ in kinds]
        weights, statistics = torch.rand(len(kinds)), torch.ones(2, len(kinds), shape[1])
        y, used = mixed_op_sum.mixed_op_sum(z, weights, kinds, statistics, 1e-5)
        wanted = list(range(len(kinds)))
        mixed_op_sum.mixed_op_sum_backward(y, z, weights, kinds, used, 1e-5, wanted)


def launch_separable_conv() -> None:
    for shape, out, dilations, stride, dtype in (
        ((1, 1, 1, 1), 1, [1], 1, F32),
        ((4, 32, 6, 4), 32, [1], 1, F32),  # the second half of a separable convolution
        ((2, 7, 5, 3), 70, [2, 1], 2, F16),
    ):
        x = torch.randn(shape).to(dtype).contiguous(memory_format=LAST)
        depthwise = torch.randn(len(dilations), shape[1], 3, 3).to(dtype)
        pointwise = torch.randn(len(dilations), out, shape[1]).to(dtype)
        z, _ = separable_conv.separable_conv(x, depthwise, pointwise, dilations, stride, True)
        separable_conv.separable_conv_backward(z, x, depthwise, pointwise, dilations, stride, True, True)


def launch_part_attention() -> None:
    for shape, edges, dtype, more in ((1, 1, 4, 1), 1, F32, False), ((5, 33, 11, 7), 2, BF16, True):
        channels, hidden, strips = shape[1], max(1, shape[1] // 3), (edges, part_attention.PARTS)

        def number(*sizes: int) -> Tensor:
            return torch.randn(sizes)

        parameters = [number(*strips, hidden, channels), number(*strips, hidden)]
        parameters += [number(edges, hidden, hidden), number(edges, hidden)] * 2 + [
            number(edges, channels, hidden)
        ]
        affine = number(2, *strips, hidden) if more else None
        x = torch.randn(shape).to(dtype).contiguous(memory_format=LAST)
        statistics = torch.ones(2, *strips, hidden) if more else None
        bias, *saved = part_attention.part_attention(x, *parameters, affine, statistics, more, 1e-5)
        part_attention.part_attention_backward(
            bias, x, parameters, affine, *saved, not more, more, 1e-5, True, True
        )


def launch_batch_from_cache() -> None:
    for count, height, width, batch in ((1, 1, 1, 1), (5, 16, 8, 3)):
        images, zeros = torch.zeros(count, height, width, 3, dtype=torch.uint8), torch.zeros(batch).long()
        batch_from_cache.batch_from_cache(images, zeros, zeros, zeros, zeros.bool(), F16)


if __name__ == "__main__":
    assert ops.MAX_FILTERS  # `separable_conv` calls the stencil's op
    triton.runtime.driver.set_active(Hopper())
    JITFunction.run = compiled_only
    globals()[f"launch_{sys.argv[1]}"]()
