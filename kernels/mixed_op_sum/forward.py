"""Forward kernels of `mixed_op_sum`; the package's docstring has the maths."""

import triton
import triton.language as tl

from autoreid_fast.kernels.mixed_op_sum.tiles import BATCH, PLAIN, kind_of, tile_of
from autoreid_fast.kernels.moments import merged_moments


@triton.jit(do_not_specialize=["tiles"])
def partial_moments(
    candidate_ptrs,  # K of (N, C, H, W)
    partial_ptr,  # (2, K, tiles, C): mean, and sum of squared differences from it, of each tile
    geometry,
    tiles,
    KINDS: tl.constexpr,
    COUNT: tl.constexpr,
    BLOCK_POSITIONS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Write the moments of this program's tile of every BATCH candidate."""
    offs, mask, offs_c, mask_c = tile_of(geometry, BLOCK_POSITIONS, BLOCK_CHANNELS)
    tile = tl.program_id(0).to(tl.int64)
    values = tl.minimum(geometry.size - tile * BLOCK_POSITIONS, BLOCK_POSITIONS).to(tl.float32)
    for k in tl.static_range(COUNT):
        if KINDS[k] == BATCH:
            z = tl.load(candidate_ptrs[k] + offs, mask=mask, other=0.0).to(tl.float32)
            mean = tl.sum(z, 0) / values
            deviation = tl.where(mask, z - mean[None, :], 0.0)
            mean_ptr = partial_ptr + (tl.full((), k, tl.int64) * tiles + tile) * geometry.channels + offs_c
            squares_ptr = mean_ptr + tl.full((), COUNT, tl.int64) * tiles * geometry.channels
            tl.store(mean_ptr, mean, mask=mask_c)
            tl.store(squares_ptr, tl.sum(deviation * deviation, 0), mask=mask_c)


@triton.jit(do_not_specialize=["tiles"])
def combine_moments(
    partial_ptr,  # (2, K, tiles, C), of `partial_moments`
    statistics_ptr,  # (2, K, C): mean and variance of the GIVEN and FIXED candidates
    used_ptr,  # (2, K, C): mean and variance that normalise each candidate
    size,
    channels,
    tiles,
    KINDS: tl.constexpr,
    COUNT: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_TILES: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Write mean and variance of candidate k = program_id(0)."""
    k = tl.program_id(0).to(tl.int64)
    kind = kind_of(k, KINDS, COUNT)
    offs_c = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    mask_c = offs_c < channels
    mean = tl.zeros((BLOCK_CHANNELS,), tl.float32)
    variance = tl.full((BLOCK_CHANNELS,), 1.0, tl.float32)
    plane = tl.full((), COUNT, tl.int64) * channels
    if kind == BATCH:
        means_ptr = partial_ptr + k * tiles * channels
        mean, variance = merged_moments(
            means_ptr, means_ptr + plane * tiles, offs_c, mask_c, size, channels, tiles,
            TILE, BLOCK_TILES, BLOCK_CHANNELS,
        )  # fmt: skip
    elif kind != PLAIN:
        mean = tl.load(statistics_ptr + k * channels + offs_c, mask=mask_c, other=0.0)
        variance = tl.load(statistics_ptr + plane + k * channels + offs_c, mask=mask_c, other=1.0)
    tl.store(used_ptr + k * channels + offs_c, mean, mask=mask_c)
    tl.store(used_ptr + plane + k * channels + offs_c, variance, mask=mask_c)


@triton.jit
def weighted_sum(
    candidate_ptrs,  # K of (N, C, H, W)
    weights_ptr,  # (K,)
    used_ptr,  # (2, K, C)
    total_ptr,  # (N, C, H, W)
    eps,
    geometry,
    KINDS: tl.constexpr,
    COUNT: tl.constexpr,
    UNROLL: tl.constexpr,
    BLOCK_POSITIONS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Write this program's tile of the total."""
    offs, mask, offs_c, mask_c = tile_of(geometry, BLOCK_POSITIONS, BLOCK_CHANNELS)
    channels = geometry.channels
    acc = tl.zeros((BLOCK_POSITIONS, BLOCK_CHANNELS), tl.float32)
    # One iteration, which the compiler cannot know: it keeps the loads of a group inside this loop. All loads
    # hoisted together would spill.
    once = tl.minimum(geometry.size, 1)
    for first in tl.static_range(0, COUNT, UNROLL):
        for _ in range(once):
            for k in tl.static_range(first, first + UNROLL):
                if k < COUNT:
                    z = tl.load(candidate_ptrs[k] + offs, mask=mask, other=0.0).to(tl.float32)
                    weight = tl.load(weights_ptr + k)
                    if KINDS[k] == PLAIN:
                        acc += weight * z
                    else:
                        mean = tl.load(used_ptr + k * channels + offs_c, mask=mask_c, other=0.0)
                        variance = tl.load(used_ptr + (COUNT + k) * channels + offs_c, mask=mask_c, other=1.0)
                        scale = weight / tl.sqrt(variance + eps)
                        acc += scale[None, :] * (z - mean[None, :])
    tl.store(total_ptr + offs, acc.to(total_ptr.dtype.element_ty), mask=mask)
