"""Depthwise 3x3 filters on one tile of pixels: shared by forward and backward kernels of `separable_conv`."""

from typing import NamedTuple

import triton
import triton.language as tl


class Sizes(NamedTuple):
    """The sizes of one call."""

    pixels: int
    """N Ho Wo: output pixels."""
    height: int
    """H."""
    width: int
    """W."""
    out_height: int
    """Ho."""
    out_width: int
    """Wo."""
    channels: int
    """C."""
    out_channels: int
    """D."""
    stride: int


@triton.jit
def depthwise_tile(
    x_ptr,  # (N, H, W, C)
    depthwise_ptr,  # (F, C, 9)
    f,
    dilations,  # bit f: dilation of filter f, minus 1
    offs_q,
    mask_q,
    offs_c,
    mask_c,
    sizes,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """h_f (BLOCK_PIXELS, BLOCK_CHANNELS) in float32, at output pixels `offs_q` and channels `offs_c`."""
    # 64 bits whatever the values: shifting an int32 by more than 31 is undefined.
    dilation = 1 + ((dilations.to(tl.int64) >> f.to(tl.int64)) & 1).to(tl.int32)
    image = (offs_q // (sizes.out_height * sizes.out_width)).to(tl.int64) * sizes.height * sizes.width
    top = offs_q // sizes.out_width % sizes.out_height * sizes.stride - dilation
    left = offs_q % sizes.out_width * sizes.stride - dilation
    acc = tl.zeros((BLOCK_PIXELS, BLOCK_CHANNELS), tl.float32)
    filter_ptr = depthwise_ptr + (f.to(tl.int64) * sizes.channels + offs_c) * 9
    # Three iterations, which the compiler cannot know: it would issue all nine loads at once, in the layout
    # of the product.
    for u in range(3 * tl.minimum(sizes.height, 1)):
        row = top + u * dilation
        for v in tl.static_range(3):
            column = left + v * dilation
            mask_row = mask_q & (row >= 0) & (row < sizes.height)
            mask_pixel = mask_row & (column >= 0) & (column < sizes.width)
            pixel_ptr = x_ptr + ((image + row * sizes.width + column) * sizes.channels)[:, None]
            s = tl.load(pixel_ptr + offs_c[None, :], mask=mask_pixel[:, None] & mask_c[None, :], other=0.0)
            s = tl.where(s <= 0, 0.0, s.to(tl.float32))
            weight = tl.load(filter_ptr + u * 3 + v, mask=mask_c, other=0.0)
            acc += s * weight.to(tl.float32)[None, :]
    return acc
