"""Triton kernels of `mixed_op_sum`: the weighted sum of a node's normalised candidates (Eq. 2).

Maths, for K candidates z_k (N, C, H, W), weights w_k and m = N H W values per channel, separately for each
channel c, with rstd_k = 1 / sqrt(variance_k + eps):

    total = sum_k w_k (z_k - mean_k) rstd_k        (PLAIN candidates: w_k z_k)
    dot_k = sum g (z_k - mean_k)        dw_k = sum_c rstd_k dot_k
    dz_k = w_k rstd_k (g - sum(g) / m - (z_k - mean_k) rstd_k^2 dot_k / m)

Where the statistics are constants, the last two terms of dz_k are absent.

Forward: `partial_moments` reads the candidates that need batch statistics, `combine_moments` merges its
tiles, `weighted_sum` reads all candidates and writes the total. Backward: `partial_dots` reads all
candidates, `combine_dots` adds its tiles up, `candidate_grads` reads the candidates whose gradients are
wanted and writes those gradients.

Traffic: forward 2 K reads and 1 write of a candidate's size, backward 2 K reads and K writes; 5 FLOPs per
element forward, 9 backward. The candidates of one node of the default search (K = 30, N = 16, C = 32,
96 x 32, float32) take 189 MB.

Layout: all tensors of a candidate's shape are dense, channels_last or contiguous, alike for the whole node.
Position q = (image, row, column) and channel c of them lie where `Geometry` says. `weights` (K,),
`statistics` and `used` (2, K, C) are contiguous float32. A program handles a tile of positions by a block of
channels; where positions are adjacent in memory, the block is one channel.
"""

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from autoreid_fast.kernels.mixed_op_sum.backward import candidate_grads, combine_dots, partial_dots
from autoreid_fast.kernels.mixed_op_sum.forward import combine_moments, partial_moments, weighted_sum
from autoreid_fast.kernels.mixed_op_sum.tiles import BATCH, Geometry

REDUCE_ELEMENTS = 2048
"""Elements per tile of the kernels that reduce: 8 per thread. With 16, ptxas spills registers on sm_80."""
REDUCE_WARPS = 8
MAP_ELEMENTS = 512
"""Elements per tile of the kernels that write a tensor: 4 per thread."""
MAP_WARPS = 4
UNROLL = 8
"""Candidates that `weighted_sum` loads together."""
MAX_BLOCK_CHANNELS = 32
"""Channels per channels_last tile, at most: 64 adjacent bytes of a half type, 128 of float32."""


class Node:
    """The candidates of one node in one dense layout, and the tiles that they are cut into."""

    def __init__(self, candidates: Sequence[Tensor]) -> None:
        first = candidates[0]
        channels_last = first.is_contiguous(memory_format=torch.channels_last) and not first.is_contiguous()
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.candidates = tuple(self.dense(z) for z in candidates)
        self.shape, self.dtype, self.device = first.shape, first.dtype, first.device
        images, channels, height, width = first.shape
        positions = height * width
        # Not the tensor's own strides: those of dimensions of size 1 are arbitrary.
        self.geometry = Geometry(
            positions=positions,
            size=images * positions,
            channels=channels,
            stride_image=channels * positions,
            stride_channel=1 if channels_last else positions,
            stride_position=channels if channels_last else 1,
        )
        max_block = min(MAX_BLOCK_CHANNELS, triton.next_power_of_2(channels))
        self.block_channels = max_block if channels_last else 1
        self.combine_tiles, self.combine_channels = REDUCE_ELEMENTS // MAX_BLOCK_CHANNELS, max_block
        """Tiles and channels per block of the combining kernels."""

    def dense(self, z: Tensor) -> Tensor:
        """`z` in the node's layout."""
        return z.contiguous(memory_format=self.layout)

    def empty(self) -> Tensor:
        """An empty tensor of a candidate's shape, dtype and layout."""
        return torch.empty(self.shape, dtype=self.dtype, device=self.device, memory_format=self.layout)

    def empty_float(self, *shape: int) -> Tensor:
        """An empty float32 tensor on the node's device."""
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def block_positions(self, elements: int) -> int:
        """Positions per tile of at most `elements`."""
        return max(1, min(elements // self.block_channels, triton.next_power_of_2(self.geometry.size)))

    def grid(self, block_positions: int) -> tuple[int, int]:
        """Tiles of positions and blocks of channels."""
        return (
            triton.cdiv(self.geometry.size, block_positions),
            triton.cdiv(self.geometry.channels, self.block_channels),
        )


def mixed_op_sum(
    candidates: Sequence[Tensor],
    weights: Tensor,
    kinds: Sequence[int],
    statistics: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Run `autoreid_fast::mixed_op_sum` on CUDA; arguments and results as in the schema, but no float64."""
    node = Node(candidates)
    count, kinds = len(candidates), tuple(kinds)
    size, channels = node.geometry.size, node.geometry.channels
    used, total = node.empty_float(2, count, channels), node.empty()
    tile = node.block_positions(REDUCE_ELEMENTS)
    tiles, blocks = node.grid(tile)
    partial = used
    if BATCH.value in kinds:
        partial = node.empty_float(2, count, tiles, channels)
        partial_moments[tiles, blocks](
            node.candidates,
            partial,
            node.geometry,
            tiles,
            KINDS=kinds,
            COUNT=count,
            BLOCK_POSITIONS=tile,
            BLOCK_CHANNELS=node.block_channels,
            num_warps=REDUCE_WARPS,
        )
    combine_moments[count, triton.cdiv(channels, node.combine_channels)](
        partial,
        used if statistics is None else statistics.contiguous(),
        used,
        size,
        channels,
        tiles,
        KINDS=kinds,
        COUNT=count,
        TILE=tile,
        BLOCK_TILES=node.combine_tiles,
        BLOCK_CHANNELS=node.combine_channels,
        num_warps=REDUCE_WARPS,
    )
    tile = node.block_positions(MAP_ELEMENTS)
    weighted_sum[node.grid(tile)](
        node.candidates,
        weights.contiguous(),
        used,
        total,
        eps,
        node.geometry,
        KINDS=kinds,
        COUNT=count,
        UNROLL=UNROLL,
        BLOCK_POSITIONS=tile,
        BLOCK_CHANNELS=node.block_channels,
        num_warps=MAP_WARPS,
    )
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
    """Run `autoreid_fast::mixed_op_sum_backward` on CUDA; arguments and results as in the schema."""
    node = Node(candidates)
    count, kinds, wanted = len(candidates), tuple(kinds), tuple(wanted)
    size, channels = node.geometry.size, node.geometry.channels
    grad, used = node.dense(grad), statistics.contiguous()
    tile = node.block_positions(REDUCE_ELEMENTS)
    tiles, blocks = node.grid(tile)
    partial = node.empty_float(count + 1, tiles, channels)
    partial_dots[tiles, blocks](
        grad,
        node.candidates,
        used,
        partial,
        node.geometry,
        tiles,
        COUNT=count,
        BLOCK_POSITIONS=tile,
        BLOCK_CHANNELS=node.block_channels,
        num_warps=REDUCE_WARPS,
    )
    coefficients, grad_weights = node.empty_float(3, count, channels), node.empty_float(count)
    combine_dots[(count,)](
        partial,
        weights.contiguous(),
        used,
        coefficients,
        grad_weights,
        eps,
        size,
        channels,
        tiles,
        KINDS=kinds,
        COUNT=count,
        BLOCK_TILES=node.combine_tiles,
        BLOCK_CHANNELS=node.combine_channels,
        num_warps=REDUCE_WARPS,
    )
    grads = [node.empty() for _ in wanted]
    if wanted:
        tile = node.block_positions(MAP_ELEMENTS)
        candidate_grads[node.grid(tile)](
            grad,
            tuple(node.candidates[k] for k in wanted),
            used,
            coefficients,
            tuple(grads),
            node.geometry,
            KINDS=kinds,
            WANTED=wanted,
            WANTED_COUNT=len(wanted),
            COUNT=count,
            BLOCK_POSITIONS=tile,
            BLOCK_CHANNELS=node.block_channels,
            num_warps=MAP_WARPS,
        )
    return grads, grad_weights
