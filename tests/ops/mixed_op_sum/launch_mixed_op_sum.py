"""Compile the kernels of mixed_op_sum as their launches would; run in a process of its own."""

import torch
from launch import compile_only

from autoreid_fast.kernels.mixed_op_sum import mixed_op_sum, mixed_op_sum_backward

if __name__ == "__main__":
    compile_only()
    for shape, kinds, dtype, layout in (
        ((2, 1, 1, 1), [1], torch.float32, torch.contiguous_format),
        ((4, 32, 3, 2), [2], torch.float32, torch.channels_last),
        ((3, 33, 13, 7), [1, 0, 2, 3], torch.bfloat16, torch.channels_last),
    ):
        z = [torch.randn(shape).to(dtype).contiguous(memory_format=layout) for _ in kinds]
        weights, statistics = torch.rand(len(kinds)), torch.ones(2, len(kinds), shape[1])
        y, used = mixed_op_sum(z, weights, kinds, statistics, 1e-5)
        wanted = list(range(len(kinds)))
        mixed_op_sum_backward(y, z, weights, kinds, used, 1e-5, wanted)
