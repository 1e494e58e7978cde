"""Tiles, kinds and memory layout: what the forward and backward kernels of `mixed_op_sum` share."""

from typing import NamedTuple

import triton
import triton.language as tl

from autoreid_fast.ops.mixed_op_sum import kinds

PLAIN = tl.constexpr(kinds.PLAIN)
BATCH = tl.constexpr(kinds.BATCH)
GIVEN = tl.constexpr(kinds.GIVEN)


class Geometry(NamedTuple):
    """Where the elements of a node's tensors lie.

    Element (c, q) is at (q // positions) stride_image + (q % positions) stride_position + c stride_channel.
    """

    positions: int
    """H W."""
    size: int
    """N H W."""
    channels: int
    """C."""
    stride_image: int
    stride_channel: int
    stride_position: int


@triton.jit
def tile_of(geometry, BLOCK_POSITIONS: tl.constexpr, BLOCK_CHANNELS: tl.constexpr):
    """This program's tile: offsets and mask (BLOCK_POSITIONS, BLOCK_CHANNELS), channels and their mask."""
    # int32: dividing an int64 takes five times as long.
    offs_q = tl.program_id(0) * BLOCK_POSITIONS + tl.arange(0, BLOCK_POSITIONS)
    offs_c = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    image, position = offs_q // geometry.positions, offs_q % geometry.positions
    offs_row = image.to(tl.int64) * geometry.stride_image + position.to(tl.int64) * geometry.stride_position
    offs = offs_row[:, None] + offs_c.to(tl.int64)[None, :] * geometry.stride_channel
    mask_c = offs_c < geometry.channels
    return offs, (offs_q < geometry.size)[:, None] & mask_c[None, :], offs_c, mask_c


@triton.jit
def kind_of(k, KINDS: tl.constexpr, COUNT: tl.constexpr):
    """KINDS[k], for a k known only at run time."""
    kind = PLAIN
    for i in tl.static_range(COUNT):
        kind = tl.where(k == i, KINDS[i], kind)
    return kind
