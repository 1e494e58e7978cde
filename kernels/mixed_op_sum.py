"""A node's weighted sum of normalised candidates in Triton; the op's public face is `autoreid_fast.ops`.

Maths, for K candidates z_k (N, C, H, W), weights w_k, m = N H W, per channel c, rstd = 1 / sqrt(var + eps):

    y = sum_k w_k (z_k - mean_k) rstd_k                        (plain candidates: w_k z_k)
    d_k = sum g (z_k - mean_k),   dw_k = sum_c rstd_k d_k
    dz_k = w_k rstd_k (g - sum(g) / m - (z_k - mean_k) rstd_k^2 d_k / m), without the last two terms where the
           statistics are constants

Forward: `partial_moments` reads the candidates that need statistics, `combine_moments` adds its tiles up
(Chan's formula: no difference of large squares), `weighted_sum` reads all candidates and writes y. Backward:
`partial_dots` reads all candidates, `combine_dots` adds up, `candidate_grads` reads those whose gradients are
wanted and writes these. Bytes: K reads twice and one write; K reads twice and K writes. A node of the default
search (K = 30, N = 16, C = 32, 96 x 32, fp32) has 189 MB of candidates.

Layouts: element (c, q) of a tensor, q = n H W + position, lies at
(q // HW) * stride_image + (q % HW) * stride_position + c * stride_channel, contiguous or channels_last. A
program has a tile of positions by a block of channels (one channel where positions are adjacent). Sums go by
tiles and are then added in order: the same bits every time.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from autoreid_fast.kernels.moments import merged_moments

# As ops/mixed_op_sum/reference.py has them; 3 is FIXED.
PLAIN = tl.constexpr(0)
BATCH = tl.constexpr(1)
GIVEN = tl.constexpr(2)

REDUCE_ELEMENTS = 2048
"""Of a tile in the kernels that reduce: 8 a thread; with 16 ptxas spills some for sm_80."""
REDUCE_WARPS = 8
MAP_ELEMENTS = 512
"""Of a tile in the kernels that write: 4 a thread."""
MAP_WARPS = 4
AT_ONCE = 8
"""Candidates that `weighted_sum` loads together."""
MAX_CHANNELS = 32
"""Of a channels_last tile: 64 adjacent bytes of a half type, 128 of float32."""


@triton.jit
def tile_of(
    positions, size, channels, stride_image, stride_channel, stride_position,
    TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Offsets (TILE, BLOCK), their mask, this program's channels (BLOCK,) and their mask."""
    q = tl.program_id(0) * TILE + tl.arange(0, TILE)  # int32, for its division is five times as fast
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    rows = (q // positions).to(tl.int64) * stride_image + (q % positions).to(tl.int64) * stride_position
    offsets = rows[:, None] + c.to(tl.int64)[None, :] * stride_channel
    return offsets, (q < size)[:, None] & (c < channels)[None, :], c, c < channels


@triton.jit
def kind_of(k, KINDS: tl.constexpr, COUNT: tl.constexpr):
    """KINDS[k] for a k that is known only now."""
    kind = PLAIN
    for i in tl.static_range(COUNT):
        kind = tl.where(k == i, KINDS[i], kind)
    return kind


@triton.jit(do_not_specialize=["tiles"])
def partial_moments(
    candidates, partial,
    positions, size, channels, stride_image, stride_channel, stride_position, tiles,
    KINDS: tl.constexpr, COUNT: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """partial (2, K, tiles, C): mean and sum of squared differences from it of each tile."""
    offsets, mask, c, in_c = tile_of(
        positions, size, channels, stride_image, stride_channel, stride_position, TILE, BLOCK
    )
    tile = tl.program_id(0).to(tl.int64)
    values = tl.minimum(size - tile * TILE, TILE).to(tl.float32)
    for k in tl.static_range(COUNT):
        if KINDS[k] == BATCH:
            z = tl.load(candidates[k] + offsets, mask=mask, other=0.0).to(tl.float32)
            mean = tl.sum(z, 0) / values
            off = tl.where(mask, z - mean[None, :], 0.0)
            at = partial + (tl.full((), k, tl.int64) * tiles + tile) * channels + c
            tl.store(at, mean, mask=in_c)
            tl.store(at + tl.full((), COUNT, tl.int64) * tiles * channels, tl.sum(off * off, 0), mask=in_c)


@triton.jit(do_not_specialize=["tiles"])
def combine_moments(
    partial, statistics, used, size, channels, tiles,
    KINDS: tl.constexpr, COUNT: tl.constexpr, TILE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """used (2, K, C): mean and variance by which candidate k = program 0 is normalised."""
    k = tl.program_id(0).to(tl.int64)
    kind = kind_of(k, KINDS, COUNT)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    in_c = c < channels
    mean = tl.zeros((BLOCK,), tl.float32)
    variance = tl.full((BLOCK,), 1.0, tl.float32)
    plane = tl.full((), COUNT, tl.int64) * channels
    if kind == BATCH:
        mean, variance = merged_moments(
            partial, plane, k, c, in_c, size, channels, tiles, TILE, ROWS, BLOCK
        )  # fmt: skip
    elif kind != PLAIN:
        mean = tl.load(statistics + k * channels + c, mask=in_c, other=0.0)
        variance = tl.load(statistics + plane + k * channels + c, mask=in_c, other=1.0)
    tl.store(used + k * channels + c, mean, mask=in_c)
    tl.store(used + plane + k * channels + c, variance, mask=in_c)


@triton.jit
def weighted_sum(
    candidates, weights, used, total, eps,
    positions, size, channels, stride_image, stride_channel, stride_position,
    KINDS: tl.constexpr, COUNT: tl.constexpr, AT_ONCE: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    offsets, mask, c, in_c = tile_of(
        positions, size, channels, stride_image, stride_channel, stride_position, TILE, BLOCK
    )
    y = tl.zeros((TILE, BLOCK), tl.float32)
    # A loop of one turn, unknown to the compiler: no load moves out of it, for all at once spill.
    once = tl.minimum(size, 1)
    for first in tl.static_range(0, COUNT, AT_ONCE):
        for _ in range(once):
            for k in tl.static_range(first, first + AT_ONCE):
                if k < COUNT:
                    z = tl.load(candidates[k] + offsets, mask=mask, other=0.0).to(tl.float32)
                    weight = tl.load(weights + k)
                    if KINDS[k] == PLAIN:
                        y += weight * z
                    else:
                        mean = tl.load(used + k * channels + c, mask=in_c, other=0.0)
                        variance = tl.load(used + (COUNT + k) * channels + c, mask=in_c, other=1.0)
                        scale = weight / tl.sqrt(variance + eps)
                        y += scale[None, :] * (z - mean[None, :])
    tl.store(total + offsets, y.to(total.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["tiles"])
def partial_dots(
    grad, candidates, used, partial,
    positions, size, channels, stride_image, stride_channel, stride_position, tiles,
    COUNT: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """partial (K + 1, tiles, C): sum g (z_k - mean_k) of each tile, and last sum g."""
    offsets, mask, c, in_c = tile_of(
        positions, size, channels, stride_image, stride_channel, stride_position, TILE, BLOCK
    )
    tile = tl.program_id(0).to(tl.int64)
    g = tl.load(grad + offsets, mask=mask, other=0.0).to(tl.float32)
    for k in tl.static_range(COUNT):
        z = tl.load(candidates[k] + offsets, mask=mask, other=0.0).to(tl.float32)
        mean = tl.load(used + k * channels + c, mask=in_c, other=0.0)
        at = partial + (tl.full((), k, tl.int64) * tiles + tile) * channels + c
        tl.store(at, tl.sum(g * (z - mean[None, :]), 0), mask=in_c)
    at = partial + (tl.full((), COUNT, tl.int64) * tiles + tile) * channels + c
    tl.store(at, tl.sum(g, 0), mask=in_c)


@triton.jit(do_not_specialize=["tiles"])
def combine_dots(
    partial, weights, used, coefficients, grad_weights, eps, size, channels, tiles,
    KINDS: tl.constexpr, COUNT: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """For candidate k = program 0: dw_k, and (3, K, C) scale, slope and offset of
    dz = scale g + slope (z - mean) + offset."""
    k = tl.program_id(0).to(tl.int64)
    kind = kind_of(k, KINDS, COUNT)
    plane = tl.full((), COUNT, tl.int64) * channels
    weight = tl.load(weights + k)
    grad_weight = tl.zeros((BLOCK,), tl.float32)
    for first_c in range(0, channels, BLOCK):
        c = first_c + tl.arange(0, BLOCK)
        in_c = c < channels
        dot = tl.zeros((BLOCK,), tl.float32)
        grad_sum = tl.zeros((BLOCK,), tl.float32)
        for first in range(0, tiles, ROWS):
            t = (first + tl.arange(0, ROWS)).to(tl.int64)
            mask = (t < tiles)[:, None] & in_c[None, :]
            at = partial + t[:, None] * channels + c[None, :]
            dot += tl.sum(tl.load(at + k * tiles * channels, mask=mask, other=0.0), 0)
            grad_sum += tl.sum(tl.load(at + plane * tiles, mask=mask, other=0.0), 0)
        variance = tl.load(used + plane + k * channels + c, mask=in_c, other=1.0)
        rstd = tl.where(kind == PLAIN, 1.0, 1.0 / tl.sqrt(variance + eps))
        through = tl.where((kind == BATCH) | (kind == GIVEN), 1.0 / size, 0.0)
        scale = weight * rstd
        grad_weight += tl.where(in_c, rstd * dot, 0.0)
        at = coefficients + k * channels + c
        tl.store(at, scale, mask=in_c)
        tl.store(at + plane, -scale * rstd * rstd * dot * through, mask=in_c)
        tl.store(at + 2 * plane, -scale * grad_sum * through, mask=in_c)
    tl.store(grad_weights + k, tl.sum(grad_weight, 0))


@triton.jit
def candidate_grads(
    grad, candidates, used, coefficients, grads,
    positions, size, channels, stride_image, stride_channel, stride_position,
    KINDS: tl.constexpr, WANTED: tl.constexpr, WANTED_COUNT: tl.constexpr, COUNT: tl.constexpr,
    TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """grads[i] is that of candidates[i], which is number WANTED[i] of all."""
    offsets, mask, c, in_c = tile_of(
        positions, size, channels, stride_image, stride_channel, stride_position, TILE, BLOCK
    )
    g = tl.load(grad + offsets, mask=mask, other=0.0).to(tl.float32)
    for i in tl.static_range(WANTED_COUNT):
        at = WANTED[i] * channels + c
        scale = tl.load(coefficients + at, mask=in_c, other=0.0)
        dz = scale[None, :] * g
        if (KINDS[WANTED[i]] == BATCH) | (KINDS[WANTED[i]] == GIVEN):
            z = tl.load(candidates[i] + offsets, mask=mask, other=0.0).to(tl.float32)
            mean = tl.load(used + at, mask=in_c, other=0.0)
            slope = tl.load(coefficients + COUNT * channels + at, mask=in_c, other=0.0)
            offset = tl.load(coefficients + 2 * COUNT * channels + at, mask=in_c, other=0.0)
            dz += slope[None, :] * (z - mean[None, :]) + offset[None, :]
        tl.store(grads[i] + offsets, dz.to(grads[i].dtype.element_ty), mask=mask)


class Node:
    """Tensors of one shape as the kernels take them, and how they are cut into tiles."""

    def __init__(self, candidates: Sequence[Tensor]) -> None:
        first = candidates[0]
        last = first.is_contiguous(memory_format=torch.channels_last) and not first.is_contiguous()
        self.layout = torch.channels_last if last else torch.contiguous_format
        self.candidates = tuple(self.readable(z) for z in candidates)
        self.shape, self.dtype, self.device = first.shape, first.dtype, first.device
        images, self.channels, height, width = first.shape
        self.positions = height * width
        self.size = images * self.positions
        # Not the tensor's own strides: those of dimensions of size 1 may be anything.
        strides = (1, self.channels) if last else (self.positions, 1)
        self.where = (
            self.positions, self.size, self.channels, self.channels * self.positions, *strides
        )  # fmt: skip
        self.block = min(MAX_CHANNELS, triton.next_power_of_2(self.channels)) if last else 1

    def readable(self, z: Tensor) -> Tensor:
        return z.contiguous(memory_format=self.layout)

    def writable(self) -> Tensor:
        return torch.empty(self.shape, dtype=self.dtype, device=self.device, memory_format=self.layout)

    def numbers(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def tile(self, elements: int) -> int:
        """Positions of a tile of at most so many elements."""
        return max(1, min(elements // self.block, triton.next_power_of_2(self.size)))

    def grid(self, tile: int) -> tuple[int, int]:
        return triton.cdiv(self.size, tile), triton.cdiv(self.channels, self.block)

    def sum_block(self) -> tuple[int, int]:
        """Tiles and channels that a combining kernel has at once."""
        channels = min(MAX_CHANNELS, triton.next_power_of_2(self.channels))
        return REDUCE_ELEMENTS // MAX_CHANNELS, channels


def mixed_op_sum(
    candidates: Sequence[Tensor],
    weights: Tensor,
    kinds: Sequence[int],
    statistics: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """The CUDA kernel of `autoreid_fast::mixed_op_sum`; arguments as the twin has them, but no float64."""
    node = Node(candidates)
    count, kinds = len(candidates), tuple(kinds)
    used, total = node.numbers(2, count, node.channels), node.writable()
    tile = node.tile(REDUCE_ELEMENTS)
    tiles, blocks = node.grid(tile)
    batch = BATCH.value in kinds
    partial = node.numbers(2, count, tiles, node.channels) if batch else used
    if batch:
        partial_moments[tiles, blocks](
            node.candidates, partial, *node.where, tiles,
            KINDS=kinds, COUNT=count, TILE=tile, BLOCK=node.block, num_warps=REDUCE_WARPS,
        )  # fmt: skip
    rows, block = node.sum_block()
    combine_moments[count, triton.cdiv(node.channels, block)](
        partial, used if statistics is None else statistics.contiguous(), used,
        node.size, node.channels, tiles,
        KINDS=kinds, COUNT=count, TILE=tile, ROWS=rows, BLOCK=block, num_warps=REDUCE_WARPS,
    )  # fmt: skip
    tile = node.tile(MAP_ELEMENTS)
    weighted_sum[node.grid(tile)](
        node.candidates, weights.contiguous(), used, total, eps, *node.where,
        KINDS=kinds, COUNT=count, AT_ONCE=AT_ONCE, TILE=tile, BLOCK=node.block, num_warps=MAP_WARPS,
    )  # fmt: skip
    return total, used


def mixed_op_sum_backward(
    grad: Tensor,
    candidates: Sequence[Tensor],
    weights: Tensor,
    kinds: Sequence[int],
    statistics: Tensor,
    eps: float,
    wanted: Sequence[int],
) -> tuple[list[Tensor], Tensor]:
    """The CUDA kernel of `autoreid_fast::mixed_op_sum_backward`; arguments as the twin has them."""
    node = Node(candidates)
    count, kinds, wanted = len(candidates), tuple(kinds), tuple(wanted)
    g, used = node.readable(grad), statistics.contiguous()
    tile = node.tile(REDUCE_ELEMENTS)
    tiles, blocks = node.grid(tile)
    partial = node.numbers(count + 1, tiles, node.channels)
    partial_dots[tiles, blocks](
        g, node.candidates, used, partial, *node.where, tiles,
        COUNT=count, TILE=tile, BLOCK=node.block, num_warps=REDUCE_WARPS,
    )  # fmt: skip
    rows, block = node.sum_block()
    coefficients, grad_weights = node.numbers(3, count, node.channels), node.numbers(count)
    combine_dots[(count,)](
        partial, weights.contiguous(), used, coefficients, grad_weights, eps,
        node.size, node.channels, tiles,
        KINDS=kinds, COUNT=count, ROWS=rows, BLOCK=block, num_warps=REDUCE_WARPS,
    )  # fmt: skip
    grads = [node.writable() for _ in wanted]
    if wanted:
        tile = node.tile(MAP_ELEMENTS)
        candidate_grads[node.grid(tile)](
            g, tuple(node.candidates[k] for k in wanted), used, coefficients, tuple(grads), *node.where,
            KINDS=kinds, WANTED=wanted, WANTED_COUNT=len(wanted), COUNT=count,
            TILE=tile, BLOCK=node.block, num_warps=MAP_WARPS,
        )  # fmt: skip
    return grads, grad_weights
