"""Triton kernels of `separable_conv`: ReLU, depthwise 3x3 and pointwise 1x1 convolution, F filters at once.

Maths, for F filters, m = N Ho Wo output pixels q, C channels in and D out, s = ReLU(x), dilation e_f:

    h_f[q, c] = sum_t depthwise[f, c, t] s[q stride + (t - centre) e_f, c]        z_f = h_f pointwise_f^T
    dh_f = dz_f pointwise_f        dpointwise_f = dz_f^T h_f

and dx and ddepthwise are the stencil's, computed from dh.

Forward, `separable_products`: a program handles BLOCK_PIXELS pixels of one filter and up to MAX_BLOCK_OUT
channels of z. It computes h in registers, BLOCK_CHANNELS at a time, as the left operand of `tl.dot`, and
never stores it. The mean and the squared differences of the z that it writes are its epilogue;
`merge_statistics` merges them. Backward, `filter_grads`: a program recomputes h and sums dz^T h over one
slab of pixels; slabs are added in order. Up to MAX_FUSED_OUT channels of z it also makes dh from the same
tile of dz. Above, and where no weight gradients are needed, dh is one `torch.bmm`. `stencil3x3_backward`
makes dx and ddepthwise from dh.

float32 products are tf32x3: three TF32 products on the tensor cores, with nearly float32's own error. Half
types: h is rounded to them, as an unfused convolution stores it; sums are float32.

Traffic, in passes over a tensor of z's size (D = C, stride 1):
    forward: F + 1 (x is loaded 9 F times, all but one from L1 and L2); a stencil, a GEMM and the statistics
    take 4 F + 1. F = 8, N = 16, C = 32, 96 x 32, float32: 57 MB against 208, 24 us against 87 at 2.4 TB/s.
    backward: 3 F + 3 up to MAX_FUSED_OUT, 5 F + 3 above; a stencil and a GEMM take 7 F + 3.
FLOPs: 2 m F C D per product; h takes 18 m F C on CUDA cores, again for every MAX_BLOCK_OUT channels of z: 14
% of a product of MAX_BLOCK_OUT. `filter_grads` reads a tile of dz again, from L2, for every
GRAD_BLOCK_CHANNELS of h; keeping its whole row of D values beside pointwise for dh would spill beyond 32
channels. At every C of the search and of the derived network (16 to 512) this saves bytes over stencil and
GEMM, so there is no other route. These counts are predicted, tiles were chosen by what ptxas compiles
without spills; neither is measured.

Layout, all contiguous: x (N, H, W, C), z and dz (F, N, Ho, Wo, D), dh (F, N, Ho, Wo, C), depthwise (F, C, 9),
pointwise (F, D, C), statistics (F, 2, D).
"""

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from autoreid_fast.kernels.separable_conv.backward import filter_grads
from autoreid_fast.kernels.separable_conv.depthwise import Sizes
from autoreid_fast.kernels.separable_conv.forward import merge_statistics, separable_products
from autoreid_fast.ops.stencil3x3 import out_size

BLOCK_PIXELS = 64
"""Output pixels per tile, in all kernels."""
BLOCK_CHANNELS = 16
"""Channels of h at a time in the forward kernel."""
MAX_BLOCK_OUT = 64
"""Channels of z per program, at most."""
WARPS = 8
REGISTERS = 128
"""Registers per thread, at most: two programs per multiprocessor."""
GRAD_BLOCK_CHANNELS = 16
"""Channels of h per program of `filter_grads`."""
MAX_FUSED_OUT = 32
"""Channels of z up to which `filter_grads` makes dh too."""
GRAD_WARPS = 4
GRAD_REGISTERS = 168
"""Registers per thread, at most: three programs per multiprocessor."""
GRAD_PROGRAMS = 1024
"""Programs of `filter_grads`, at least, where there are as many tiles: several per multiprocessor."""
MERGE_BLOCK_TILES = 64
MERGE_BLOCK_OUT = 32
MERGE_WARPS = 8


class Problem:
    """The tensors of one call, contiguous, and their sizes."""

    def __init__(
        self, x: Tensor, depthwise: Tensor, pointwise: Tensor, dilations: Sequence[int], stride: int
    ) -> None:
        batch, channels, height, width = x.shape
        self.filters, out_channels, _ = pointwise.shape
        out_height, out_width = out_size(height, stride), out_size(width, stride)
        self.x = x.permute(0, 2, 3, 1).contiguous()
        self.depthwise, self.pointwise = depthwise.contiguous(), pointwise.contiguous()
        self.dilations = sum((dilation - 1) << f for f, dilation in enumerate(dilations))
        """Bit f: dilation of filter f, minus 1."""
        self.sizes = Sizes(
            pixels=batch * out_height * out_width,
            height=height,
            width=width,
            out_height=out_height,
            out_width=out_width,
            channels=channels,
            out_channels=out_channels,
            stride=stride,
        )
        self.image = (batch, out_height, out_width)
        self.tiles = triton.cdiv(self.sizes.pixels, BLOCK_PIXELS)
        self.block_out = out_block(out_channels)

    def empty_pixels(self, channels: int) -> Tensor:
        """An empty tensor (F, N, Ho, Wo, channels) of x's dtype."""
        return self.x.new_empty((self.filters, *self.image, channels))

    def empty_float(self, *shape: int) -> Tensor:
        """An empty float32 tensor on x's device."""
        return torch.empty(shape, dtype=torch.float32, device=self.x.device)


def out_block(out_channels: int) -> int:
    """Channels of z per program: a power of two, and at least the 16 that `tl.dot` needs."""
    return min(MAX_BLOCK_OUT, max(16, triton.next_power_of_2(out_channels)))


def separable_conv(
    x: Tensor, depthwise: Tensor, pointwise: Tensor, dilations: Sequence[int], stride: int, statistics: bool
) -> tuple[Tensor, Tensor]:
    """Run `autoreid_fast::separable_conv` on CUDA; arguments and results as in the schema, but no float64."""
    problem = Problem(x, depthwise, pointwise, dilations, stride)
    filters, out_channels, tiles = problem.filters, problem.sizes.out_channels, problem.tiles
    z = problem.empty_pixels(out_channels)
    moments = problem.empty_float(filters if statistics else 0, 2, out_channels)
    partial = problem.empty_float(2, filters, tiles, out_channels) if statistics else moments
    separable_products[(filters * triton.cdiv(out_channels, problem.block_out) * tiles,)](
        problem.x,
        problem.depthwise,
        problem.pointwise,
        z,
        partial,
        problem.dilations,
        filters,
        problem.sizes,
        tiles,
        STATISTICS=statistics,
        BLOCK_PIXELS=BLOCK_PIXELS,
        BLOCK_CHANNELS=BLOCK_CHANNELS,
        BLOCK_OUT=problem.block_out,
        num_warps=WARPS,
        num_stages=1,
        maxnreg=REGISTERS,
    )
    if statistics:
        merge_statistics[filters, triton.cdiv(out_channels, MERGE_BLOCK_OUT)](
            partial,
            moments,
            filters,
            problem.sizes.pixels,
            out_channels,
            tiles,
            TILE=BLOCK_PIXELS,
            BLOCK_TILES=MERGE_BLOCK_TILES,
            BLOCK_OUT=MERGE_BLOCK_OUT,
            num_warps=MERGE_WARPS,
        )
    return z.movedim(-1, -3), moments


def separable_conv_backward(
    grad: Tensor,
    x: Tensor,
    depthwise: Tensor,
    pointwise: Tensor,
    dilations: Sequence[int],
    stride: int,
    need_x: bool,
    need_weights: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run `autoreid_fast::separable_conv_backward` on CUDA; arguments and results as in the schema."""
    dilations = list(dilations)
    dz = grad.movedim(-3, -1).contiguous()
    problem = Problem(x, depthwise, pointwise, dilations, stride)
    fused = need_weights and problem.sizes.out_channels <= MAX_FUSED_OUT
    if fused:
        grad_filtered = problem.empty_pixels(problem.sizes.channels)
    else:
        grad_filtered = torch.bmm(dz.flatten(1, 3), pointwise).view(*dz.shape[:-1], -1)
    grad_pointwise = pointwise.new_empty((0, *pointwise.shape[1:]))
    if need_weights:
        grad_pointwise = _filter_grads(dz, problem, grad_filtered, fused)
    grad_x, grad_depthwise = torch.ops.autoreid_fast.stencil3x3_backward(
        None, None, grad_filtered.movedim(-1, -3), x, depthwise, dilations, stride, True, need_x, need_weights
    )
    return grad_x, grad_depthwise, grad_pointwise


def _filter_grads(dz: Tensor, problem: Problem, grad_filtered: Tensor, fused: bool) -> Tensor:
    """The gradient of pointwise (F, D, C); where ``fused``, also write dh to ``grad_filtered``."""
    channels, out_channels = problem.sizes.channels, problem.sizes.out_channels
    blocks = problem.filters * triton.cdiv(channels, GRAD_BLOCK_CHANNELS)
    out_blocks = triton.cdiv(out_channels, problem.block_out)
    slab_tiles = triton.cdiv(problem.tiles, triton.cdiv(GRAD_PROGRAMS, blocks * out_blocks))
    slabs = triton.cdiv(problem.tiles, slab_tiles)
    partial = problem.empty_float(slabs, problem.filters, out_channels, channels)
    filter_grads[blocks * slabs, out_blocks](
        dz,
        problem.x,
        problem.depthwise,
        problem.pointwise,
        grad_filtered,
        partial,
        problem.dilations,
        problem.filters,
        problem.sizes,
        slab_tiles,
        FUSED=fused,
        BLOCK_PIXELS=BLOCK_PIXELS,
        BLOCK_CHANNELS=GRAD_BLOCK_CHANNELS,
        BLOCK_OUT=problem.block_out,
        num_warps=GRAD_WARPS,
        num_stages=1,
        maxnreg=GRAD_REGISTERS,
    )
    return partial.sum(0).to(dz.dtype)
