"""ReLU, depthwise 3x3 and pointwise 1x1 convolution of one source, every filter of it at once, in Triton; the
op's public face is `autoreid_fast.ops`.

Maths, for F filters, m = N Ho Wo output pixels q, C channels in and D out, s = ReLU(x), dilation e_f:

    h_f[q, c] = sum_t depthwise[f, c, t] s[q stride + (t - centre) e_f, c]      z_f = h_f pointwise_f^T
    dh_f = dz_f pointwise_f      dpointwise_f = dz_f^T h_f      dx, ddepthwise: the stencil's, from dh_f

Forward, one launch: a program has TILE pixels of one filter and up to MAX_OUT channels of z. It computes h
in registers, CHANNELS at a time, as the left operand of `tl.dot`, and never stores it; mean and squared
differences of the z that it writes are its epilogue, merged by a second launch (`moments.py`). Backward:
`filter_grads` computes h again and sums dz^T h over a slab of pixels a program; slabs are added in order. Up
to MAX_FUSED_OUT channels it makes dh of the same tile of dz; above, dh is one `torch.bmm`, which is all that
there is without weight gradients. `stencil3x3_backward` makes dx and ddepthwise of dh. The same bits every
time.

float32 products are tf32x3: three TF32 products on the tensor cores, with nearly float32's own error; never
one alone. Half types: h is rounded to them, as an unfused convolution stores it; sums are float32.

Bytes, in passes over a tensor of z's size (D = C, stride 1):
    forward: F + 1 (x is loaded 9 F times, of which L1 and L2 serve all but one); by stencil and GEMM 4 F + 1
    with the statistics. F = 8, N = 16, C = 32, 96 x 32, float32: 57 MB against 208, 24 us against 87 at an
    H100's 2.4 TB/s.
    backward: 3 F + 3 up to MAX_FUSED_OUT, above 5 F + 3; by stencil and GEMM 7 F + 3.
FLOPs: 2 m F C D a product; h takes 18 m F C on CUDA cores, again for each MAX_OUT channels of z: 14 % of a
product of MAX_OUT. `filter_grads` reads a tile of dz again for each GRAD_CHANNELS of h, from L2; keeping its
whole row of D numbers beside pointwise for dh would spill beyond 32. At every C of the search and of the
derived network (16 to 512) this saves bytes over stencil and GEMM, so there is no other route. Predicted from
these counts, and tiles chosen by what ptxas gives without spills: not measured.

Layouts, dense: x (N, H, W, C), z and dz (F, N, Ho, Wo, D), dh (F, N, Ho, Wo, C), depthwise (F, C, 9),
pointwise (F, D, C).
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from autoreid_fast.kernels.moments import merged_moments
from autoreid_fast.ops.stencil3x3 import out_size

TILE = 64
"""Output pixels of a tile, in all kernels."""
CHANNELS = 16
"""Of h at a time in the forward kernel."""
MAX_OUT = 64
"""Channels of z of a program."""
WARPS = 8
REGISTERS = 128
"""Of a thread, at most: two programs a processor."""
GRAD_CHANNELS = 16
"""Of h of a program of `filter_grads`."""
MAX_FUSED_OUT = 32
"""Channels of z up to which `filter_grads` makes dh too."""
GRAD_WARPS = 4
GRAD_REGISTERS = 168
"""Of a thread, at most: three programs a processor."""
PROGRAMS = 1024
"""Of `filter_grads`, at least, where there are as many tiles: several for each processor of a large GPU."""
MERGE_ROWS = 64
MERGE_CHANNELS = 32
MERGE_WARPS = 8


@triton.jit
def depthwise_tile(
    x, depthwise, f, dilations, q, in_q, c, in_c,
    height, width, out_height, out_width, channels, stride,
    TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """h_f (TILE, BLOCK) in float32 at output pixels q and channels c."""
    # 64 bits whatever their value: shifting an int32 by more than 31 is undefined
    dilation = 1 + ((dilations.to(tl.int64) >> f.to(tl.int64)) & 1).to(tl.int32)
    image = (q // (out_height * out_width)).to(tl.int64) * height * width
    i = q // out_width % out_height * stride - dilation
    j = q % out_width * stride - dilation
    h = tl.zeros((TILE, BLOCK), tl.float32)
    weights = depthwise + (f.to(tl.int64) * channels + c) * 9
    # Three turns, unknown to the compiler: it would have all nine loads at once, in the product's layout.
    for u in range(3 * tl.minimum(height, 1)):
        row = i + u * dilation
        for v in tl.static_range(3):
            column = j + v * dilation
            seen = in_q & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            at = (image + row * width + column) * channels
            s = tl.load(x + at[:, None] + c[None, :], mask=seen[:, None] & in_c[None, :], other=0.0)
            s = tl.where(s <= 0, 0.0, s.to(tl.float32))
            weight = tl.load(weights + u * 3 + v, mask=in_c, other=0.0)
            h += s * weight.to(tl.float32)[None, :]
    return h


@triton.jit(do_not_specialize=["dilations", "filters"])
def separable_products(
    x, depthwise, pointwise, z, partial, dilations,
    filters, size, height, width, out_height, out_width, channels, out_channels, stride, tiles,
    STATISTICS: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr, OUT: tl.constexpr,
):  # fmt: skip
    """z, and in partial (2, F, tiles, D) each tile's mean and sum of squared differences from it.

    All filters of a tile follow one another, so that x stays in the cache.
    """
    f = tl.program_id(0) % filters
    blocks = tl.cdiv(out_channels, OUT)
    tile = tl.program_id(0) // filters // blocks
    d = tl.program_id(0) // filters % blocks * OUT + tl.arange(0, OUT)
    in_d = d < out_channels
    q = tile * TILE + tl.arange(0, TILE)
    in_q = q < size
    product = tl.zeros((TILE, OUT), tl.float32)
    for first in range(0, channels, BLOCK):
        c = first + tl.arange(0, BLOCK)
        in_c = c < channels
        h = depthwise_tile(
            x, depthwise, f, dilations, q, in_q, c, in_c,
            height, width, out_height, out_width, channels, stride, TILE, BLOCK,
        )  # fmt: skip
        at = (f.to(tl.int64) * out_channels + d)[None, :] * channels + c[:, None]
        weight = tl.load(pointwise + at, mask=in_c[:, None] & in_d[None, :], other=0.0)
        product = tl.dot(h.to(weight.dtype), weight, product, input_precision="tf32x3")
    rounded = product.to(z.dtype.element_ty)
    at = z + (f.to(tl.int64) * size + q)[:, None] * out_channels + d[None, :]
    tl.store(at, rounded, mask=in_q[:, None] & in_d[None, :])
    if STATISTICS:
        product = rounded.to(tl.float32)  # 0 where there is no pixel
        mean = tl.sum(product, 0) / tl.minimum(size - tile * TILE, TILE).to(tl.float32)
        off = tl.where(in_q[:, None], product - mean[None, :], 0.0)
        at = partial + (f.to(tl.int64) * tiles + tile) * out_channels + d
        tl.store(at, mean, mask=in_d)
        plane = filters.to(tl.int64) * tiles * out_channels
        tl.store(at + plane, tl.sum(off * off, 0), mask=in_d)


@triton.jit(do_not_specialize=["filters"])
def merge_statistics(
    partial, statistics, filters, size, out_channels, tiles,
    TILE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """statistics (F, 2, D): mean and biased variance of z_f, f = program 0."""
    f = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    in_d = d < out_channels
    plane = filters.to(tl.int64) * out_channels
    mean, variance = merged_moments(
        partial, plane, f, d, in_d, size, out_channels, tiles, TILE, ROWS, BLOCK
    )  # fmt: skip
    at = statistics + f * 2 * out_channels + d
    tl.store(at, mean, mask=in_d)
    tl.store(at + out_channels, variance, mask=in_d)


@triton.jit(do_not_specialize=["dilations", "filters"])
def filter_grads(
    grad, x, depthwise, pointwise, grad_filtered, partial, dilations,
    filters, size, height, width, out_height, out_width, channels, out_channels, stride, slab_tiles,
    FUSED: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr, OUT: tl.constexpr,
):  # fmt: skip
    """dh where FUSED (D <= OUT); in partial (slabs, F, D, C) the sum of dz^T h over slab_tiles tiles."""
    f = tl.program_id(0) % filters
    blocks = tl.cdiv(channels, BLOCK)
    c = tl.program_id(0) // filters % blocks * BLOCK + tl.arange(0, BLOCK)
    in_c = c < channels
    d = tl.program_id(1) * OUT + tl.arange(0, OUT)
    slab = tl.program_id(0) // filters // blocks
    in_d = d < out_channels
    weights = (f.to(tl.int64) * out_channels + d)[:, None] * channels + c[None, :]
    in_weights = in_d[:, None] & in_c[None, :]
    total = tl.zeros((OUT, BLOCK), tl.float32)
    for tile in range(slab * slab_tiles, (slab + 1) * slab_tiles):
        q = tile * TILE + tl.arange(0, TILE)
        in_q = q < size
        rows = f.to(tl.int64) * size + q
        at = rows[:, None] * out_channels + d[None, :]
        dz = tl.load(grad + at, mask=in_q[:, None] & in_d[None, :], other=0.0)
        if FUSED:
            weight = tl.load(pointwise + weights, mask=in_weights, other=0.0)
            dh = tl.dot(dz, weight, input_precision="tf32x3")
            at = grad_filtered + rows[:, None] * channels + c[None, :]
            tl.store(at, dh.to(grad_filtered.dtype.element_ty), mask=in_q[:, None] & in_c[None, :])
        h = depthwise_tile(
            x, depthwise, f, dilations, q, in_q, c, in_c,
            height, width, out_height, out_width, channels, stride, TILE, BLOCK,
        )  # fmt: skip
        total = tl.dot(tl.trans(dz), h.to(dz.dtype), total, input_precision="tf32x3")
    slab_plane = filters.to(tl.int64) * out_channels * channels
    tl.store(partial + slab * slab_plane + weights, total, mask=in_weights)


class Source:
    """x and the filters of one call, dense, and the sizes that all kernels take."""

    def __init__(
        self, x: Tensor, depthwise: Tensor, pointwise: Tensor, dilations: Sequence[int], stride: int
    ) -> None:
        batch, self.channels, height, width = x.shape
        self.filters, self.out_channels, _ = pointwise.shape
        self.image = (batch, out_size(height, stride), out_size(width, stride))
        self.size = batch * self.image[1] * self.image[2]
        self.tensors = (x.permute(0, 2, 3, 1).contiguous(), depthwise.contiguous(), pointwise.contiguous())
        self.dilations = sum((dilation - 1) << f for f, dilation in enumerate(dilations))
        self.sizes = (
            self.filters, self.size, height, width, *self.image[1:], self.channels, self.out_channels, stride
        )  # fmt: skip
        self.like = x

    def pixels(self, channels: int) -> Tensor:
        """Empty (F, N, Ho, Wo, channels)."""
        return self.like.new_empty((self.filters, *self.image, channels))

    def numbers(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.like.device)


def out_block(channels: int) -> int:
    """Channels of z of a program: a power of two, and at least what `tl.dot` takes."""
    return min(MAX_OUT, max(16, triton.next_power_of_2(channels)))


def separable_conv(
    x: Tensor, depthwise: Tensor, pointwise: Tensor, dilations: Sequence[int], stride: int, statistics: bool
) -> tuple[Tensor, Tensor]:
    """The CUDA kernel of `autoreid_fast::separable_conv`; arguments as the twin has them, but no float64."""
    source = Source(x, depthwise, pointwise, dilations, stride)
    filters, channels = source.filters, source.out_channels
    z = source.pixels(channels)
    tiles, out = triton.cdiv(source.size, TILE), out_block(channels)
    moments = source.numbers(filters if statistics else 0, 2, channels)
    partial = source.numbers(2, filters, tiles, channels) if statistics else moments
    separable_products[(filters * triton.cdiv(channels, out) * tiles,)](
        *source.tensors, z, partial, source.dilations, *source.sizes, tiles,
        STATISTICS=statistics, TILE=TILE, BLOCK=CHANNELS, OUT=out,
        num_warps=WARPS, num_stages=1, maxnreg=REGISTERS,
    )  # fmt: skip
    if statistics:
        merge_statistics[filters, triton.cdiv(channels, MERGE_CHANNELS)](
            partial, moments, filters, source.size, channels, tiles,
            TILE=TILE, ROWS=MERGE_ROWS, BLOCK=MERGE_CHANNELS, num_warps=MERGE_WARPS,
        )  # fmt: skip
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
    """The CUDA kernel of `autoreid_fast::separable_conv_backward`; arguments as the twin has them."""
    dilations = list(dilations)
    dz = grad.movedim(-3, -1).contiguous()
    source = Source(x, depthwise, pointwise, dilations, stride)
    fused = need_weights and source.out_channels <= MAX_FUSED_OUT
    if fused:
        grad_filtered = source.pixels(source.channels)
    else:
        grad_filtered = torch.bmm(dz.flatten(1, 3), pointwise).view(*dz.shape[:-1], -1)
    grad_pointwise = pointwise.new_empty((0, *pointwise.shape[1:]))
    if need_weights:
        grad_pointwise = _filter_grads(dz, source, grad_filtered, fused)
    grad_x, grad_depthwise = torch.ops.autoreid_fast.stencil3x3_backward(
        None, None, grad_filtered.movedim(-1, -3), x, depthwise, dilations, stride, True, need_x, need_weights
    )
    return grad_x, grad_depthwise, grad_pointwise


def _filter_grads(dz: Tensor, source: Source, grad_filtered: Tensor, fused: bool) -> Tensor:
    """The gradient of pointwise (F, D, C); where ``fused``, dh is written to grad_filtered too."""
    tiles, out = triton.cdiv(source.size, TILE), out_block(source.out_channels)
    blocks = source.filters * triton.cdiv(source.channels, GRAD_CHANNELS)
    out_blocks = triton.cdiv(source.out_channels, out)
    slab_tiles = triton.cdiv(tiles, triton.cdiv(PROGRAMS, blocks * out_blocks))
    slabs = triton.cdiv(tiles, slab_tiles)
    partial = source.numbers(slabs, source.filters, source.out_channels, source.channels)
    filter_grads[blocks * slabs, out_blocks](
        dz, *source.tensors, grad_filtered, partial, source.dilations, *source.sizes, slab_tiles,
        FUSED=fused, TILE=TILE, BLOCK=GRAD_CHANNELS, OUT=out,
        num_warps=GRAD_WARPS, num_stages=1, maxnreg=GRAD_REGISTERS,
    )  # fmt: skip
    return partial.sum(0).to(dz.dtype)
