"""The kernels of part_attention's backward pass; part_attention.py has the maths."""

import triton
import triton.language as tl

from autoreid_fast.kernels.part_attention.forward import (
    PARTS,
    attention_of,
    linear,
    product,
    strip_of,
    tile_of,
)


@triton.jit
def attend_back(
    grad, f, key_weight, key_bias, query_weight, query_bias, fuse_weight,
    part, grad_keys, grad_queries, grad_f, rows, hidden, out_channels,
    RELU: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """For the parameters' gradients part (with its ReLU), d K and d Q; and d f, where d part lies first.

    Programs as `attend` has them."""
    edge = tl.program_id(1).to(tl.int64)
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    in_row = row < rows
    f += edge * rows * hidden
    part += edge * rows * hidden
    grad_keys += edge * rows * hidden
    grad_queries += edge * rows * hidden
    grad_f += edge * rows * hidden
    key_weight += edge * hidden * hidden
    query_weight += edge * hidden * hidden
    key_bias += edge * hidden
    query_bias += edge * hidden
    attention = attention_of(
        f, key_weight, key_bias, query_weight, query_bias, row, in_row, hidden, ROWS, BLOCK
    )  # fmt: skip

    grad_attention = tl.zeros((ROWS, ROWS), tl.float32)
    for first in range(0, hidden, BLOCK):
        j = first + tl.arange(0, BLOCK)
        mask = in_row[:, None] & (j < hidden)[None, :]
        at = row[:, None] * hidden + j[None, :]
        tile = tile_of(f, row, in_row, j, hidden)
        value = tl.dot(attention, tile, input_precision="ieee")
        grad_part = product(
            tl.zeros((ROWS, BLOCK), tl.float32),
            grad + edge * rows * out_channels, out_channels, 1, row, in_row,
            fuse_weight + edge * out_channels * hidden, hidden, 1, j, j < hidden, out_channels, False, BLOCK,
        )  # fmt: skip
        if RELU:
            grad_part = tl.where(value > 0, grad_part, 0.0)
            value = tl.maximum(value, 0.0)
        tl.store(part + at, value, mask=mask)
        tl.store(grad_f + at, grad_part, mask=mask)
        grad_attention = tl.dot(grad_part, tl.trans(tile), grad_attention, input_precision="ieee")
    inner = tl.sum(grad_attention * attention, 1)
    grad_scores = attention * (grad_attention - inner[:, None])

    for first in range(0, hidden, BLOCK):
        j = first + tl.arange(0, BLOCK)
        mask = in_row[:, None] & (j < hidden)[None, :]
        at = row[:, None] * hidden + j[None, :]
        keys = linear(f, key_weight, key_bias, row, in_row, j, hidden, ROWS, BLOCK)
        queries = linear(f, query_weight, query_bias, row, in_row, j, hidden, ROWS, BLOCK)
        tl.store(grad_keys + at, tl.dot(grad_scores, queries, input_precision="ieee"), mask=mask)
        tl.store(grad_queries + at, tl.dot(tl.trans(grad_scores), keys, input_precision="ieee"), mask=mask)
    tl.debug_barrier()  # other threads read what was stored

    for first in range(0, hidden, BLOCK):
        j = first + tl.arange(0, BLOCK)
        in_j = j < hidden
        grad_part = tile_of(grad_f, row, in_row, j, hidden)
        total = tl.dot(tl.trans(attention), grad_part, input_precision="ieee")
        total = product(
            total, grad_keys, hidden, 1, row, in_row, key_weight, hidden, 1, j, in_j, hidden, False, BLOCK
        )
        total = product(
            total,
            grad_queries,
            hidden,
            1,
            row,
            in_row,
            query_weight,
            hidden,
            1,
            j,
            in_j,
            hidden,
            False,
            BLOCK,
        )
        tl.debug_barrier()  # every thread has its d part
        tl.store(grad_f + row[:, None] * hidden + j[None, :], total, mask=in_row[:, None] & in_j[None, :])


@triton.jit
def project_back(
    grad_f, normalized, affine, used, grad_affine, eps, images, hidden, strips,
    BATCH: tl.constexpr, HAS_AFFINE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """d f to d v, in place, and the gradients of affine; programs as `project` has them."""
    strip = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    in_j = j < hidden
    base = ((strip // PARTS) * images * PARTS + strip % PARTS) * hidden + j[None, :]
    total = tl.zeros((BLOCK,), tl.float32)
    dot = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, images, ROWS):
        n = (first + tl.arange(0, ROWS)).to(tl.int64)
        mask = (n < images)[:, None] & in_j[None, :]
        at = base + n[:, None] * PARTS * hidden
        value = tl.load(grad_f + at, mask=mask, other=0.0)
        total += tl.sum(value, 0)
        dot += tl.sum(value * tl.load(normalized + at, mask=mask, other=0.0), 0)
    variance = tl.load(used + (strips + strip) * hidden + j, mask=in_j, other=1.0)
    scale = tl.rsqrt(variance + eps)
    if HAS_AFFINE:
        tl.store(grad_affine + strip * hidden + j, dot, mask=in_j)
        tl.store(grad_affine + (strips + strip) * hidden + j, total, mask=in_j)
        scale *= tl.load(affine + strip * hidden + j, mask=in_j, other=0.0)
    if not BATCH:
        total = tl.zeros((BLOCK,), tl.float32)
        dot = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, images, ROWS):
        n = (first + tl.arange(0, ROWS)).to(tl.int64)
        mask = (n < images)[:, None] & in_j[None, :]
        at = base + n[:, None] * PARTS * hidden
        value = tl.load(grad_f + at, mask=mask, other=0.0) - (total / images)[None, :]
        value -= tl.load(normalized + at, mask=mask, other=0.0) * (dot / images)[None, :]
        tl.store(grad_f + at, scale[None, :] * value, mask=mask)


@triton.jit
def mean_grads(
    grad_projected, weight, means, grad_means, images, channels, hidden, edges,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Program 0: a block of images, 1: of channels, 2: the strip."""
    m = tl.program_id(2).to(tl.int64)
    n = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    in_c = c < channels
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for e in range(edges):
        edge = tl.full((), 0, tl.int64) + e
        total = product(
            total, grad_projected + (edge * images * PARTS + m) * hidden, PARTS * hidden, 1, n, n < images,
            weight + (edge * PARTS + m) * hidden * channels, channels, 1, c, in_c, hidden, False, BLOCK,
        )  # fmt: skip
    at = (n[:, None] * PARTS + m) * channels + c[None, :]
    mask = (n < images)[:, None] & in_c[None, :]
    mean = tl.load(means + at, mask=mask, other=0.0)
    tl.store(grad_means + at, tl.where(mean > 0, total, 0.0), mask=mask)


@triton.jit
def spread(grad_means, grad_x, height, width, channels, PIXELS: tl.constexpr, BLOCK: tl.constexpr):
    pixel, pixels = strip_of(height, width)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at = grad_means + tl.program_id(0).to(tl.int64) * channels + c
    value = (tl.load(at, mask=c < channels, other=0.0) / pixels).to(grad_x.dtype.element_ty)
    tile = tl.broadcast_to(value[None, :], (PIXELS, BLOCK))
    for first in range(0, pixels, PIXELS):
        p = first + tl.arange(0, PIXELS)
        mask = (p < pixels)[:, None] & (c < channels)[None, :]
        tl.store(grad_x + (pixel + p)[:, None] * channels + c[None, :], tile, mask=mask)


@triton.jit
def weight_grads(
    a, b, grad, grad_bias, depth, rows, columns, a_row, b_row, a_outer, a_inner, b_outer, b_inner,
    INNER: tl.constexpr, RELU: tl.constexpr, HAS_BIAS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """grad (batch, rows, columns) = a^T b, with ReLU(b) where RELU; grad_bias (batch, rows) = the sum of a.

    Matrix o INNER + i of a begins at o a_outer + i a_inner and has `depth` rows, a_row apart; b likewise."""
    batch = tl.program_id(2).to(tl.int64)
    a += batch // INNER * a_outer + batch % INNER * a_inner
    b += batch // INNER * b_outer + batch % INNER * b_inner
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    in_i, in_j = i < rows, j < columns
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    total_bias = tl.zeros((BLOCK,), tl.float32)
    for first in range(0, depth, BLOCK):
        k = (first + tl.arange(0, BLOCK)).to(tl.int64)
        in_k = k < depth
        left = tl.load(a + k[None, :] * a_row + i[:, None], mask=in_i[:, None] & in_k[None, :], other=0.0)
        left = left.to(tl.float32)
        right = tl.load(b + k[:, None] * b_row + j[None, :], mask=in_k[:, None] & in_j[None, :], other=0.0)
        if RELU:
            right = tl.maximum(right, 0.0)
        total = tl.dot(left, right, total, input_precision="ieee")
        total_bias += tl.sum(left, 1)
    at = (batch * rows + i)[:, None] * columns + j[None, :]
    tl.store(grad + at, total, mask=in_i[:, None] & in_j[None, :])
    if HAS_BIAS:
        tl.store(grad_bias + batch * rows + i, total_bias, mask=in_i & (tl.program_id(1) == 0))
