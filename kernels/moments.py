"""Batch statistics of those of tiles, in Triton, by Chan's formula: no difference of large squares."""

import triton
import triton.language as tl


@triton.jit
def merged_moments(
    partial, plane, k, c, in_c, size, channels, tiles,
    TILE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Mean and biased variance (BLOCK,) of channels c of tensor k, size values a channel in tiles of TILE.

    partial (2, K, tiles, C): mean and sum of squared differences from it of each tile; its second half is
    plane * tiles behind the first. ROWS tiles are added at once, always in one order.
    """
    mean = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, tiles, ROWS):
        t = (first + tl.arange(0, ROWS)).to(tl.int64)
        values = tl.minimum(size - t * TILE, TILE).to(tl.float32)
        mask = (t < tiles)[:, None] & in_c[None, :]
        at = partial + (k * tiles + t)[:, None] * channels + c[None, :]
        mean += tl.sum(tl.load(at, mask=mask, other=0.0) * (values / size)[:, None], 0)
    variance = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, tiles, ROWS):
        t = (first + tl.arange(0, ROWS)).to(tl.int64)
        values = tl.minimum(size - t * TILE, TILE).to(tl.float32)
        mask = (t < tiles)[:, None] & in_c[None, :]
        at = partial + (k * tiles + t)[:, None] * channels + c[None, :]
        off = tl.where(mask, tl.load(at, mask=mask, other=0.0) - mean[None, :], 0.0)
        squares = tl.load(at + plane * tiles, mask=mask, other=0.0)
        variance += tl.sum(squares + off * off * values[:, None], 0)
    return mean, variance / size
