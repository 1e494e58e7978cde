"""Batch statistics merged from those of tiles, by Chan's formula: no difference of large squares.

For tiles t of n_t values with mean mean_t and squared differences from it squares_t, n = sum of n_t:

    mean = sum_t n_t / n mean_t        variance = sum_t (squares_t + n_t (mean_t - mean)^2) / n
"""

import triton
import triton.language as tl


@triton.jit
def merged_moments(
    means_ptr,  # (tiles, C): mean of each tile
    squares_ptr,  # (tiles, C): sum of squared differences from it
    offs_c,
    mask_c,
    size,  # values per channel, cut into tiles of TILE
    channels,  # C
    tiles,
    TILE: tl.constexpr,
    BLOCK_TILES: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Mean and biased variance (BLOCK_CHANNELS,) of the channels `offs_c`."""
    acc_mean = tl.zeros((BLOCK_CHANNELS,), tl.float32)
    for first in range(0, tiles, BLOCK_TILES):
        offs_t = (first + tl.arange(0, BLOCK_TILES)).to(tl.int64)
        values = tl.minimum(size - offs_t * TILE, TILE).to(tl.float32)
        mask = (offs_t < tiles)[:, None] & mask_c[None, :]
        offs = offs_t[:, None] * channels + offs_c[None, :]
        acc_mean += tl.sum(tl.load(means_ptr + offs, mask=mask, other=0.0) * (values / size)[:, None], 0)
    acc = tl.zeros((BLOCK_CHANNELS,), tl.float32)
    for first in range(0, tiles, BLOCK_TILES):
        offs_t = (first + tl.arange(0, BLOCK_TILES)).to(tl.int64)
        values = tl.minimum(size - offs_t * TILE, TILE).to(tl.float32)
        mask = (offs_t < tiles)[:, None] & mask_c[None, :]
        offs = offs_t[:, None] * channels + offs_c[None, :]
        mean = tl.load(means_ptr + offs, mask=mask, other=0.0)
        deviation = tl.where(mask, mean - acc_mean[None, :], 0.0)
        squares = tl.load(squares_ptr + offs, mask=mask, other=0.0)
        acc += tl.sum(squares + deviation * deviation * values[:, None], 0)
    return acc_mean, acc / size
