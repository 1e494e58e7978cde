"""Backward kernels of `mixed_op_sum`; the package's docstring has the maths."""

import triton
import triton.language as tl

from autoreid_fast.kernels.mixed_op_sum.tiles import BATCH, GIVEN, PLAIN, kind_of, tile_of


@triton.jit(do_not_specialize=["tiles"])
def partial_dots(
    grad_ptr,  # (N, C, H, W)
    candidate_ptrs,  # K of (N, C, H, W)
    used_ptr,  # (2, K, C)
    partial_ptr,  # (K + 1, tiles, C): sum of g (z_k - mean_k) of each tile; last the sum of g
    geometry,
    tiles,
    COUNT: tl.constexpr,
    BLOCK_POSITIONS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Write the dot products of this program's tile."""
    offs, mask, offs_c, mask_c = tile_of(geometry, BLOCK_POSITIONS, BLOCK_CHANNELS)
    channels = geometry.channels
    tile = tl.program_id(0).to(tl.int64)
    g = tl.load(grad_ptr + offs, mask=mask, other=0.0).to(tl.float32)
    for k in tl.static_range(COUNT):
        z = tl.load(candidate_ptrs[k] + offs, mask=mask, other=0.0).to(tl.float32)
        mean = tl.load(used_ptr + k * channels + offs_c, mask=mask_c, other=0.0)
        dot_ptr = partial_ptr + (tl.full((), k, tl.int64) * tiles + tile) * channels + offs_c
        tl.store(dot_ptr, tl.sum(g * (z - mean[None, :]), 0), mask=mask_c)
    sum_ptr = partial_ptr + (tl.full((), COUNT, tl.int64) * tiles + tile) * channels + offs_c
    tl.store(sum_ptr, tl.sum(g, 0), mask=mask_c)


@triton.jit(do_not_specialize=["tiles"])
def combine_dots(
    partial_ptr,  # (K + 1, tiles, C), of `partial_dots`
    weights_ptr,  # (K,)
    used_ptr,  # (2, K, C)
    coefficients_ptr,  # (3, K, C): scale, slope and offset of dz = scale g + slope (z - mean) + offset
    grad_weights_ptr,  # (K,)
    eps,
    size,
    channels,
    tiles,
    KINDS: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK_TILES: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Write the coefficients and the weight's gradient of candidate k = program_id(0)."""
    k = tl.program_id(0).to(tl.int64)
    kind = kind_of(k, KINDS, COUNT)
    plane = tl.full((), COUNT, tl.int64) * channels
    weight = tl.load(weights_ptr + k)
    acc_weight = tl.zeros((BLOCK_CHANNELS,), tl.float32)
    for first_c in range(0, channels, BLOCK_CHANNELS):
        offs_c = first_c + tl.arange(0, BLOCK_CHANNELS)
        mask_c = offs_c < channels
        acc_dot = tl.zeros((BLOCK_CHANNELS,), tl.float32)
        acc_grad = tl.zeros((BLOCK_CHANNELS,), tl.float32)
        for first in range(0, tiles, BLOCK_TILES):
            offs_t = (first + tl.arange(0, BLOCK_TILES)).to(tl.int64)
            mask = (offs_t < tiles)[:, None] & mask_c[None, :]
            tile_ptr = partial_ptr + offs_t[:, None] * channels + offs_c[None, :]
            acc_dot += tl.sum(tl.load(tile_ptr + k * tiles * channels, mask=mask, other=0.0), 0)
            acc_grad += tl.sum(tl.load(tile_ptr + plane * tiles, mask=mask, other=0.0), 0)
        variance = tl.load(used_ptr + plane + k * channels + offs_c, mask=mask_c, other=1.0)
        rstd = tl.where(kind == PLAIN, 1.0, 1.0 / tl.sqrt(variance + eps))
        # 0 where no gradient flows through the statistics
        through = tl.where((kind == BATCH) | (kind == GIVEN), 1.0 / size, 0.0)
        scale = weight * rstd
        acc_weight += tl.where(mask_c, rstd * acc_dot, 0.0)
        scale_ptr = coefficients_ptr + k * channels + offs_c
        tl.store(scale_ptr, scale, mask=mask_c)
        tl.store(scale_ptr + plane, -scale * rstd * rstd * acc_dot * through, mask=mask_c)
        tl.store(scale_ptr + 2 * plane, -scale * acc_grad * through, mask=mask_c)
    tl.store(grad_weights_ptr + k, tl.sum(acc_weight, 0))


@triton.jit
def candidate_grads(
    grad_ptr,  # (N, C, H, W)
    candidate_ptrs,  # those whose gradients are wanted, each (N, C, H, W)
    used_ptr,  # (2, K, C)
    coefficients_ptr,  # (3, K, C), of `combine_dots`
    grad_ptrs,  # gradients of `candidate_ptrs`, in that order
    geometry,
    KINDS: tl.constexpr,
    WANTED: tl.constexpr,  # numbers of `candidate_ptrs` among all K
    WANTED_COUNT: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK_POSITIONS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Write this program's tile of every wanted gradient."""
    offs, mask, offs_c, mask_c = tile_of(geometry, BLOCK_POSITIONS, BLOCK_CHANNELS)
    channels = geometry.channels
    g = tl.load(grad_ptr + offs, mask=mask, other=0.0).to(tl.float32)
    for i in tl.static_range(WANTED_COUNT):
        offs_k = WANTED[i] * channels + offs_c
        scale = tl.load(coefficients_ptr + offs_k, mask=mask_c, other=0.0)
        dz = scale[None, :] * g
        if (KINDS[WANTED[i]] == BATCH) | (KINDS[WANTED[i]] == GIVEN):
            z = tl.load(candidate_ptrs[i] + offs, mask=mask, other=0.0).to(tl.float32)
            mean = tl.load(used_ptr + offs_k, mask=mask_c, other=0.0)
            slope = tl.load(coefficients_ptr + COUNT * channels + offs_k, mask=mask_c, other=0.0)
            offset = tl.load(coefficients_ptr + 2 * COUNT * channels + offs_k, mask=mask_c, other=0.0)
            dz += slope[None, :] * (z - mean[None, :]) + offset[None, :]
        tl.store(grad_ptrs[i] + offs, dz.to(grad_ptrs[i].dtype.element_ty), mask=mask)
