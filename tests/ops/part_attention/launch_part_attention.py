"""Compile the kernels of part_attention as their launches would; run in a process of its own."""

import torch
from launch import compile_only
from torch import Tensor

from autoreid_fast.kernels.part_attention import part_attention, part_attention_backward
from autoreid_fast.ops.part_attention import PARTS

if __name__ == "__main__":
    compile_only()
    for shape, edges, dtype, more in (
        ((1, 1, 4, 1), 1, torch.float32, False),
        ((5, 33, 11, 7), 2, torch.bfloat16, True),
    ):
        channels, hidden, strips = shape[1], max(1, shape[1] // 3), (edges, PARTS)

        def number(*sizes: int) -> Tensor:
            return torch.randn(sizes)

        parameters = [number(*strips, hidden, channels), number(*strips, hidden)]
        parameters += [number(edges, hidden, hidden), number(edges, hidden)] * 2 + [
            number(edges, channels, hidden)
        ]
        affine = number(2, *strips, hidden) if more else None
        x = torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last)
        statistics = torch.ones(2, *strips, hidden) if more else None
        bias, *saved = part_attention(x, *parameters, affine, statistics, more, 1e-5)
        part_attention_backward(bias, x, parameters, affine, *saved, not more, more, 1e-5, True, True)
