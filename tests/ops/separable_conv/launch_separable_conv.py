"""Compile the kernels of separable_conv as their launches would; run in a process of its own."""

import torch
from launch import compile_only

from autoreid_fast.kernels.separable_conv import separable_conv, separable_conv_backward

if __name__ == "__main__":
    compile_only()
    for shape, out, dilations, stride, dtype in (
        ((1, 1, 1, 1), 1, [1], 1, torch.float32),
        ((4, 32, 6, 4), 32, [1], 1, torch.float32),  # the second half of a separable convolution
        ((2, 7, 5, 3), 70, [2, 1], 2, torch.float16),
    ):
        x = torch.randn(shape).to(dtype).contiguous(memory_format=torch.channels_last)
        depthwise = torch.randn(len(dilations), shape[1], 3, 3).to(dtype)
        pointwise = torch.randn(len(dilations), out, shape[1]).to(dtype)
        z, _ = separable_conv(x, depthwise, pointwise, dilations, stride, True)
        separable_conv_backward(z, x, depthwise, pointwise, dilations, stride, True, True)
