"""Forward kernels of `separable_conv`; the package's docstring has the maths."""

import triton
import triton.language as tl

from autoreid_fast.kernels.moments import merged_moments
from autoreid_fast.kernels.separable_conv.depthwise import depthwise_tile


@triton.jit(do_not_specialize=["dilations", "filters"])
def separable_products(
    x_ptr,  # (N, H, W, C)
    depthwise_ptr,  # (F, C, 9)
    pointwise_ptr,  # (F, D, C)
    z_ptr,  # (F, N, Ho, Wo, D)
    partial_ptr,  # (2, F, tiles, D): mean, and sum of squared differences from it, of each tile
    dilations,
    filters,  # F
    sizes,
    tiles,
    STATISTICS: tl.constexpr,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
):
    """Write z, and the moments of each tile of it.

    Programs of one tile and different filters have adjacent ids, so that the tile of x stays in the cache.
    """
    channels, out_channels = sizes.channels, sizes.out_channels
    f = tl.program_id(0) % filters
    blocks = tl.cdiv(out_channels, BLOCK_OUT)
    tile = tl.program_id(0) // filters // blocks
    offs_d = tl.program_id(0) // filters % blocks * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    mask_d = offs_d < out_channels
    offs_q = tile * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    mask_q = offs_q < sizes.pixels
    mask = mask_q[:, None] & mask_d[None, :]
    acc = tl.zeros((BLOCK_PIXELS, BLOCK_OUT), tl.float32)
    for first in range(0, channels, BLOCK_CHANNELS):
        offs_c = first + tl.arange(0, BLOCK_CHANNELS)
        mask_c = offs_c < channels
        h = depthwise_tile(
            x_ptr, depthwise_ptr, f, dilations, offs_q, mask_q, offs_c, mask_c, sizes,
            BLOCK_PIXELS, BLOCK_CHANNELS,
        )  # fmt: skip
        offs_weight = (f.to(tl.int64) * out_channels + offs_d)[None, :] * channels + offs_c[:, None]
        weight = tl.load(pointwise_ptr + offs_weight, mask=mask_c[:, None] & mask_d[None, :], other=0.0)
        acc = tl.dot(h.to(weight.dtype), weight, acc, input_precision="tf32x3")
    z = acc.to(z_ptr.dtype.element_ty)
    offs_z = (f.to(tl.int64) * sizes.pixels + offs_q)[:, None] * out_channels + offs_d[None, :]
    tl.store(z_ptr + offs_z, z, mask=mask)
    if STATISTICS:
        values = z.to(tl.float32)  # 0 beyond the last pixel
        count = tl.minimum(sizes.pixels - tile * BLOCK_PIXELS, BLOCK_PIXELS).to(tl.float32)
        mean = tl.sum(values, 0) / count
        deviation = tl.where(mask_q[:, None], values - mean[None, :], 0.0)
        mean_ptr = partial_ptr + (f.to(tl.int64) * tiles + tile) * out_channels + offs_d
        tl.store(mean_ptr, mean, mask=mask_d)
        plane = filters.to(tl.int64) * tiles * out_channels
        tl.store(mean_ptr + plane, tl.sum(deviation * deviation, 0), mask=mask_d)


@triton.jit(do_not_specialize=["filters"])
def merge_statistics(
    partial_ptr,  # (2, F, tiles, D), of `separable_products`
    statistics_ptr,  # (F, 2, D): mean and biased variance
    filters,
    pixels,
    out_channels,
    tiles,
    TILE: tl.constexpr,
    BLOCK_TILES: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
):
    """Write the statistics of z_f, f = program_id(0)."""
    f = tl.program_id(0).to(tl.int64)
    offs_d = tl.program_id(1) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    mask_d = offs_d < out_channels
    means_ptr = partial_ptr + f * tiles * out_channels
    squares_ptr = means_ptr + filters.to(tl.int64) * out_channels * tiles
    mean, variance = merged_moments(
        means_ptr, squares_ptr, offs_d, mask_d, pixels, out_channels, tiles, TILE, BLOCK_TILES, BLOCK_OUT
    )
    mean_ptr = statistics_ptr + f * 2 * out_channels + offs_d
    tl.store(mean_ptr, mean, mask=mask_d)
    tl.store(mean_ptr + out_channels, variance, mask=mask_d)
