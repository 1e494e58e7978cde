"""Backward kernel of `separable_conv`; the package's docstring has the maths."""

import triton
import triton.language as tl

from autoreid_fast.kernels.separable_conv.depthwise import depthwise_tile


@triton.jit(do_not_specialize=["dilations", "filters"])
def filter_grads(
    grad_ptr,  # (F, N, Ho, Wo, D): dz
    x_ptr,  # (N, H, W, C)
    depthwise_ptr,  # (F, C, 9)
    pointwise_ptr,  # (F, D, C)
    grad_filtered_ptr,  # (F, N, Ho, Wo, C): dh, written where FUSED
    partial_ptr,  # (slabs, F, D, C): sum of dz^T h over one slab, which is `slab_tiles` tiles
    dilations,
    filters,  # F
    sizes,
    slab_tiles,
    FUSED: tl.constexpr,  # requires D <= BLOCK_OUT
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
):
    """Write one slab's part of the gradient of `pointwise`, and where FUSED the gradient of h."""
    channels, out_channels = sizes.channels, sizes.out_channels
    f = tl.program_id(0) % filters
    blocks = tl.cdiv(channels, BLOCK_CHANNELS)
    offs_c = tl.program_id(0) // filters % blocks * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    mask_c = offs_c < channels
    offs_d = tl.program_id(1) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    slab = tl.program_id(0) // filters // blocks
    mask_d = offs_d < out_channels
    offs_weight = (f.to(tl.int64) * out_channels + offs_d)[:, None] * channels + offs_c[None, :]
    mask_weight = mask_d[:, None] & mask_c[None, :]
    acc = tl.zeros((BLOCK_OUT, BLOCK_CHANNELS), tl.float32)
    for tile in range(slab * slab_tiles, (slab + 1) * slab_tiles):
        offs_q = tile * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
        mask_q = offs_q < sizes.pixels
        offs_row = f.to(tl.int64) * sizes.pixels + offs_q
        offs_z = offs_row[:, None] * out_channels + offs_d[None, :]
        dz = tl.load(grad_ptr + offs_z, mask=mask_q[:, None] & mask_d[None, :], other=0.0)
        if FUSED:
            weight = tl.load(pointwise_ptr + offs_weight, mask=mask_weight, other=0.0)
            dh = tl.dot(dz, weight, input_precision="tf32x3").to(grad_filtered_ptr.dtype.element_ty)
            offs_h = offs_row[:, None] * channels + offs_c[None, :]
            tl.store(grad_filtered_ptr + offs_h, dh, mask=mask_q[:, None] & mask_c[None, :])
        h = depthwise_tile(
            x_ptr, depthwise_ptr, f, dilations, offs_q, mask_q, offs_c, mask_c, sizes,
            BLOCK_PIXELS, BLOCK_CHANNELS,
        )  # fmt: skip
        acc = tl.dot(tl.trans(dz), h.to(dz.dtype), acc, input_precision="tf32x3")
    slab_plane = filters.to(tl.int64) * out_channels * channels
    tl.store(partial_ptr + slab * slab_plane + offs_weight, acc, mask=mask_weight)
