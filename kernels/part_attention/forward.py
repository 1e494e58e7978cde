"""The kernels of part_attention's forward pass and what both share; part_attention.py has the maths."""

import triton
import triton.language as tl

PARTS = tl.constexpr(4)


@triton.jit
def strip_of(height, width):
    """First pixel and number of pixels of the strip m of image n, for program 0 = n M + m."""
    row = tl.program_id(0)
    m = row % PARTS
    first = m * height // PARTS
    pixel = ((row // PARTS).to(tl.int64) * height + first) * width
    return pixel, ((m + 1) * height // PARTS - first) * width


@triton.jit
def strip_means(x, means, height, width, channels, PIXELS: tl.constexpr, BLOCK: tl.constexpr):
    pixel, pixels = strip_of(height, width)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((PIXELS, BLOCK), tl.float32)
    for first in range(0, pixels, PIXELS):
        p = first + tl.arange(0, PIXELS)
        mask = (p < pixels)[:, None] & (c < channels)[None, :]
        total += tl.load(x + (pixel + p)[:, None] * channels + c[None, :], mask=mask, other=0.0).to(
            tl.float32
        )
    mean = tl.sum(total, 0) / pixels
    tl.store(means + tl.program_id(0).to(tl.int64) * channels + c, mean, mask=c < channels)


@triton.jit
def product(
    total, a, a_row, a_step, row, in_row, b, b_row, b_step, column, in_column, depth,
    RELU: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """total (ROWS, columns) + sum_k a[row, k] b[k, column], with ReLU(a) where RELU."""
    for first in range(0, depth, BLOCK):
        k = first + tl.arange(0, BLOCK)
        in_k = k < depth
        left = tl.load(
            a + row[:, None] * a_row + k[None, :] * a_step, mask=in_row[:, None] & in_k[None, :], other=0.0
        ).to(tl.float32)
        if RELU:
            left = tl.maximum(left, 0.0)
        right = tl.load(
            b + k[:, None] * b_row + column[None, :] * b_step,
            mask=in_k[:, None] & in_column[None, :],
            other=0.0,
        )
        total = tl.dot(left, right, total, input_precision="ieee")
    return total


@triton.jit
def project(
    means, weight, bias, statistics, normalized, used, eps, images, channels, hidden, strips,
    BATCH: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Program 0 is e M + m, of `strips` = E M; program 1 a block of h."""
    strip = tl.program_id(0).to(tl.int64)
    m = strip % PARTS
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    in_j = j < hidden
    out = normalized + ((strip // PARTS) * images * PARTS + m) * hidden + j[None, :]
    mean = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, images, ROWS):
        n = (first + tl.arange(0, ROWS)).to(tl.int64)
        mask = (n < images)[:, None] & in_j[None, :]
        value = product(
            tl.zeros((ROWS, BLOCK), tl.float32), means + m * channels, PARTS * channels, 1, n, n < images,
            weight + strip * hidden * channels, 1, channels, j, in_j, channels, True, BLOCK,
        )  # fmt: skip
        value += tl.load(bias + strip * hidden + j, mask=in_j, other=0.0)[None, :]
        tl.store(out + n[:, None] * PARTS * hidden, value, mask=mask)
        mean += tl.sum(tl.where(mask, value, 0.0), 0)
    tl.debug_barrier()  # other threads read what was stored
    if BATCH:
        mean = mean / images
        variance = tl.zeros((BLOCK,), tl.float32)
        for first in range(0, images, ROWS):
            n = (first + tl.arange(0, ROWS)).to(tl.int64)
            mask = (n < images)[:, None] & in_j[None, :]
            value = tl.load(out + n[:, None] * PARTS * hidden, mask=mask, other=0.0)
            off = tl.where(mask, value - mean[None, :], 0.0)
            variance += tl.sum(off * off, 0)
        variance = variance / images
    else:
        mean = tl.load(statistics + strip * hidden + j, mask=in_j, other=0.0)
        variance = tl.load(statistics + (strips + strip) * hidden + j, mask=in_j, other=1.0)
    tl.store(used + strip * hidden + j, mean, mask=in_j)
    tl.store(used + (strips + strip) * hidden + j, variance, mask=in_j)
    rstd = tl.rsqrt(variance + eps)
    for first in range(0, images, ROWS):
        n = (first + tl.arange(0, ROWS)).to(tl.int64)
        mask = (n < images)[:, None] & in_j[None, :]
        value = tl.load(out + n[:, None] * PARTS * hidden, mask=mask, other=0.0)
        tl.store(out + n[:, None] * PARTS * hidden, (value - mean[None, :]) * rstd[None, :], mask=mask)


@triton.jit
def scale_and_shift(
    normalized, affine, f, hidden, strips, BLOCK: tl.constexpr,
):  # fmt: skip
    """f = scale vhat + shift for one row (e, n, m) = program 0, of N M rows an edge = grid 1."""
    edge, row = tl.program_id(1).to(tl.int64), tl.program_id(0).to(tl.int64)
    at = (edge * tl.num_programs(0) + row) * hidden
    strip = (edge * PARTS + row % PARTS) * hidden
    for first in range(0, hidden, BLOCK):
        j = first + tl.arange(0, BLOCK)
        scale = tl.load(affine + strip + j, mask=j < hidden, other=0.0)
        shift = tl.load(affine + strips * hidden + strip + j, mask=j < hidden, other=0.0)
        value = tl.load(normalized + at + j, mask=j < hidden, other=0.0)
        tl.store(f + at + j, value * scale + shift, mask=j < hidden)


@triton.jit
def linear(f, weight, bias, row, in_row, j, hidden, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """The columns j of f weight^T + bias: keys or queries."""
    start = tl.load(bias + j, mask=j < hidden, other=0.0)
    total = tl.zeros((ROWS, BLOCK), tl.float32) + start[None, :]
    return product(total, f, hidden, 1, row, in_row, weight, 1, hidden, j, j < hidden, hidden, False, BLOCK)


@triton.jit
def tile_of(matrix, row, in_row, j, hidden):
    """(ROWS, BLOCK) of a matrix of rows of h."""
    mask = in_row[:, None] & (j < hidden)[None, :]
    return tl.load(matrix + row[:, None] * hidden + j[None, :], mask=mask, other=0.0)


@triton.jit
def attention_of(
    f, key_weight, key_bias, query_weight, query_bias, row, in_row, hidden,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A (ROWS, ROWS) of the images that have these rows: 0 between images."""
    scores = tl.zeros((ROWS, ROWS), tl.float32)
    for first in range(0, hidden, BLOCK):
        j = first + tl.arange(0, BLOCK)
        keys = linear(f, key_weight, key_bias, row, in_row, j, hidden, ROWS, BLOCK)
        queries = linear(f, query_weight, query_bias, row, in_row, j, hidden, ROWS, BLOCK)
        scores = tl.dot(keys, tl.trans(queries), scores, input_precision="ieee")
    scores = tl.where((row // PARTS)[:, None] == (row // PARTS)[None, :], scores, float("-inf"))
    weights = tl.exp(scores - tl.max(scores, 1)[:, None])
    return weights / tl.sum(weights, 1)[:, None]


@triton.jit
def attend(
    f, key_weight, key_bias, query_weight, query_bias, fuse_weight, bias, rows, hidden, out_channels,
    RELU: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Program 0 is a block of an edge's `rows` = N M rows, program 1 the edge."""
    edge = tl.program_id(1).to(tl.int64)
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    in_row = row < rows
    f += edge * rows * hidden
    square, vector = edge * hidden * hidden, edge * hidden
    attention = attention_of(
        f, key_weight + square, key_bias + vector, query_weight + square, query_bias + vector,
        row, in_row, hidden, ROWS, BLOCK,
    )  # fmt: skip
    fuse_weight += edge * out_channels * hidden
    for first_d in range(0, out_channels, BLOCK):
        d = first_d + tl.arange(0, BLOCK)
        total = tl.zeros((ROWS, BLOCK), tl.float32)
        for first in range(0, hidden, BLOCK):
            j = first + tl.arange(0, BLOCK)
            part = tl.dot(attention, tile_of(f, row, in_row, j, hidden), input_precision="ieee")
            if RELU:
                part = tl.maximum(part, 0.0)
            mask = (j < hidden)[:, None] & (d < out_channels)[None, :]
            weight = tl.load(fuse_weight + d[None, :] * hidden + j[:, None], mask=mask, other=0.0)
            total = tl.dot(part, weight, total, input_precision="ieee")
        at = bias + (edge * rows + row)[:, None] * out_channels + d[None, :]
        mask = in_row[:, None] & (d < out_channels)[None, :]
        tl.store(at, total.to(bias.dtype.element_ty), mask=mask)
