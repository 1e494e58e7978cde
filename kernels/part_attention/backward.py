"""Backward kernels of `part_attention`; csrc/part_attention/part_attention.h has the maths."""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from autoreid_fast.kernels.part_attention.tiles import (
    PARTS,
    attention_of,
    linear,
    load_tile,
    product,
    strip_of,
)


@triton.jit
def attend_backward(
    grad_ptr,  # (E, N M, D): gradient of the strip bias
    f_ptr,  # (E, N M, h)
    key_weight_ptr,  # (E, h, h)
    key_bias_ptr,  # (E, h)
    query_weight_ptr,  # (E, h, h)
    query_bias_ptr,  # (E, h)
    fuse_weight_ptr,  # (E, D, h)
    part_ptr,  # (E, N M, h): part, or relu(part) where RELU_PART
    grad_keys_ptr,  # (E, N M, h)
    grad_queries_ptr,  # (E, N M, h)
    grad_f_ptr,  # (E, N M, h); holds the gradient of part meanwhile
    rows,  # N M
    hidden,
    out_channels,  # D
    RELU_PART: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Write part and the gradients of keys, queries and f for one block of rows of edge program_id(1)."""
    edge = tl.program_id(1).to(tl.int64)
    offs_row = (tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)).to(tl.int64)
    mask_row = offs_row < rows
    grad_ptr += edge * rows * out_channels
    f_ptr += edge * rows * hidden
    part_ptr += edge * rows * hidden
    grad_keys_ptr += edge * rows * hidden
    grad_queries_ptr += edge * rows * hidden
    grad_f_ptr += edge * rows * hidden
    key_weight_ptr += edge * hidden * hidden
    query_weight_ptr += edge * hidden * hidden
    key_bias_ptr += edge * hidden
    query_bias_ptr += edge * hidden
    fuse_weight_ptr += edge * out_channels * hidden
    attention = attention_of(
        f_ptr, key_weight_ptr, key_bias_ptr, query_weight_ptr, query_bias_ptr, offs_row, mask_row, hidden,
        BLOCK_ROWS, BLOCK_COLUMNS,
    )  # fmt: skip

    # part and its gradient, and the gradient of A from them
    grad_attention = tl.zeros((BLOCK_ROWS, BLOCK_ROWS), tl.float32)
    for first in range(0, hidden, BLOCK_COLUMNS):
        offs_h = first + tl.arange(0, BLOCK_COLUMNS)
        mask_h = offs_h < hidden
        mask = mask_row[:, None] & mask_h[None, :]
        offs = offs_row[:, None] * hidden + offs_h[None, :]
        f = load_tile(f_ptr, offs_row, mask_row, offs_h, hidden)
        part = tl.dot(attention, f, input_precision="ieee")
        grad_part = product(
            tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32),
            grad_ptr, offs_row * out_channels, 1, mask_row,
            fuse_weight_ptr, offs_h, hidden, mask_h, out_channels, False, BLOCK_COLUMNS,
        )  # fmt: skip
        if RELU_PART:
            grad_part = tl.where(part > 0, grad_part, 0.0)
            part = tl.maximum(part, 0.0)
        tl.store(part_ptr + offs, part, mask=mask)
        tl.store(grad_f_ptr + offs, grad_part, mask=mask)
        grad_attention = tl.dot(grad_part, tl.trans(f), grad_attention, input_precision="ieee")
    inner = tl.sum(grad_attention * attention, 1)
    grad_scores = attention * (grad_attention - inner[:, None])

    # the gradients of keys and queries
    for first in range(0, hidden, BLOCK_COLUMNS):
        offs_h = first + tl.arange(0, BLOCK_COLUMNS)
        mask = mask_row[:, None] & (offs_h < hidden)[None, :]
        offs = offs_row[:, None] * hidden + offs_h[None, :]
        keys = linear(
            f_ptr, key_weight_ptr, key_bias_ptr, offs_row, mask_row, offs_h, hidden, BLOCK_ROWS, BLOCK_COLUMNS
        )
        queries = linear(
            f_ptr, query_weight_ptr, query_bias_ptr, offs_row, mask_row, offs_h, hidden,
            BLOCK_ROWS, BLOCK_COLUMNS,
        )  # fmt: skip
        grad_keys = tl.dot(grad_scores, queries, input_precision="ieee")
        grad_queries = tl.dot(tl.trans(grad_scores), keys, input_precision="ieee")
        tl.store(grad_keys_ptr + offs, grad_keys, mask=mask)
        tl.store(grad_queries_ptr + offs, grad_queries, mask=mask)
    tl.debug_barrier()  # below, threads read what other threads stored

    # the gradient of f
    for first in range(0, hidden, BLOCK_COLUMNS):
        offs_h = first + tl.arange(0, BLOCK_COLUMNS)
        mask_h = offs_h < hidden
        grad_part = load_tile(grad_f_ptr, offs_row, mask_row, offs_h, hidden)
        acc = tl.dot(tl.trans(attention), grad_part, input_precision="ieee")
        acc = product(
            acc, grad_keys_ptr, offs_row * hidden, 1, mask_row,
            key_weight_ptr, offs_h, hidden, mask_h, hidden, False, BLOCK_COLUMNS,
        )  # fmt: skip
        acc = product(
            acc, grad_queries_ptr, offs_row * hidden, 1, mask_row,
            query_weight_ptr, offs_h, hidden, mask_h, hidden, False, BLOCK_COLUMNS,
        )  # fmt: skip
        tl.debug_barrier()  # all threads have loaded their gradient of part, which is overwritten now
        offs = offs_row[:, None] * hidden + offs_h[None, :]
        tl.store(grad_f_ptr + offs, acc, mask=mask_row[:, None] & mask_h[None, :])


@triton.jit
def project_backward(
    grad_f_ptr,  # (E, N, M, h); overwritten with the gradient of the projections
    normalized_ptr,  # (E, N, M, h)
    affine_ptr,  # (2, E, M, h): scale and shift
    norm_statistics_ptr,  # (2, E, M, h): means and variances
    grad_affine_ptr,  # (2, E, M, h)
    eps,
    images,
    hidden,
    strip_count,  # E M
    BATCH_STATISTICS: tl.constexpr,
    HAS_AFFINE: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Turn the gradient of f into that of the projections, for strip program_id(0) in one block of h."""
    strip = tl.program_id(0).to(tl.int64)
    offs_h = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    mask_h = offs_h < hidden
    offs_strip = ((strip // PARTS) * images * PARTS + strip % PARTS) * hidden + offs_h[None, :]
    acc = tl.zeros((BLOCK_COLUMNS,), tl.float32)
    acc_projection = tl.zeros((BLOCK_COLUMNS,), tl.float32)
    for first in range(0, images, BLOCK_ROWS):
        offs_n = (first + tl.arange(0, BLOCK_ROWS)).to(tl.int64)
        mask = (offs_n < images)[:, None] & mask_h[None, :]
        offs = offs_strip + offs_n[:, None] * PARTS * hidden
        value = tl.load(grad_f_ptr + offs, mask=mask, other=0.0)
        acc += tl.sum(value, 0)
        acc_projection += tl.sum(value * tl.load(normalized_ptr + offs, mask=mask, other=0.0), 0)
    variance = tl.load(norm_statistics_ptr + (strip_count + strip) * hidden + offs_h, mask=mask_h, other=1.0)
    scale_rstd = tl.rsqrt(variance + eps)
    if HAS_AFFINE:
        tl.store(grad_affine_ptr + strip * hidden + offs_h, acc_projection, mask=mask_h)
        tl.store(grad_affine_ptr + (strip_count + strip) * hidden + offs_h, acc, mask=mask_h)
        scale_rstd *= tl.load(affine_ptr + strip * hidden + offs_h, mask=mask_h, other=0.0)
    if not BATCH_STATISTICS:
        acc = tl.zeros((BLOCK_COLUMNS,), tl.float32)
        acc_projection = tl.zeros((BLOCK_COLUMNS,), tl.float32)
    for first in range(0, images, BLOCK_ROWS):
        offs_n = (first + tl.arange(0, BLOCK_ROWS)).to(tl.int64)
        mask = (offs_n < images)[:, None] & mask_h[None, :]
        offs = offs_strip + offs_n[:, None] * PARTS * hidden
        value = tl.load(grad_f_ptr + offs, mask=mask, other=0.0) - (acc / images)[None, :]
        value -= tl.load(normalized_ptr + offs, mask=mask, other=0.0) * (acc_projection / images)[None, :]
        tl.store(grad_f_ptr + offs, scale_rstd[None, :] * value, mask=mask)


@triton.jit
def mean_grads(
    grad_projected_ptr,  # (E, N, M, h)
    project_weight_ptr,  # (E, M, h, C)
    means_ptr,  # (N, M, C)
    grad_means_ptr,  # (N, M, C)
    images,
    channels,
    hidden,
    edges,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Write the gradients of the means of a block of images, a block of channels and strip program_id(2)."""
    m = tl.program_id(2).to(tl.int64)
    offs_n = (tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)).to(tl.int64)
    offs_c = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    mask_n, mask_c = offs_n < images, offs_c < channels
    acc = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    for e in range(edges):
        edge = tl.full((), 0, tl.int64) + e
        grad_ptr = grad_projected_ptr + (edge * images * PARTS + m) * hidden
        weight_ptr = project_weight_ptr + (edge * PARTS + m) * hidden * channels
        acc = product(
            acc, grad_ptr, offs_n * (PARTS * hidden), 1, mask_n, weight_ptr, offs_c, channels,
            mask_c, hidden, False, BLOCK_COLUMNS,
        )  # fmt: skip
    offs = (offs_n[:, None] * PARTS + m) * channels + offs_c[None, :]
    mask = mask_n[:, None] & mask_c[None, :]
    mean = tl.load(means_ptr + offs, mask=mask, other=0.0)
    tl.store(grad_means_ptr + offs, tl.where(mean > 0, acc, 0.0), mask=mask)


@triton.jit
def spread_grads(
    grad_means_ptr,  # (N, M, C)
    grad_x_ptr,  # (N, H, W, C)
    height,
    width,
    channels,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Write the gradient of every pixel of one strip (program_id 0) and one block of channels."""
    pixel, pixels = strip_of(height, width)
    offs_c = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    mask_c = offs_c < channels
    grad_mean = tl.load(
        grad_means_ptr + tl.program_id(0).to(tl.int64) * channels + offs_c, mask=mask_c, other=0.0
    )
    value = (grad_mean / pixels).to(grad_x_ptr.dtype.element_ty)
    tile = tl.broadcast_to(value[None, :], (BLOCK_PIXELS, BLOCK_COLUMNS))
    for first in range(0, pixels, BLOCK_PIXELS):
        offs_p = first + tl.arange(0, BLOCK_PIXELS)
        mask = (offs_p < pixels)[:, None] & mask_c[None, :]
        tl.store(grad_x_ptr + (pixel + offs_p)[:, None] * channels + offs_c[None, :], tile, mask=mask)


class Matrices(NamedTuple):
    """A stack of matrices with contiguous rows.

    Matrix o INNER + i starts o stride_outer + i stride_inner after `ptr`.
    """

    ptr: Tensor
    stride_row: int
    stride_outer: int
    stride_inner: int = 0


@triton.jit
def weight_grads(
    a,  # Matrices (depth, rows)
    b,  # Matrices (depth, columns)
    grad_ptr,  # (stack, rows, columns): a^T b, or a^T relu(b) where RELU
    grad_bias_ptr,  # (stack, rows): sum of a over depth, written where HAS_BIAS
    depth,
    rows,
    columns,
    INNER: tl.constexpr,
    RELU: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Write one tile of the gradient of a linear layer's weight, and its bias, for matrix program_id(2)."""
    matrix = tl.program_id(2).to(tl.int64)
    a_ptr = a.ptr + (matrix // INNER * a.stride_outer + matrix % INNER * a.stride_inner)
    b_ptr = b.ptr + (matrix // INNER * b.stride_outer + matrix % INNER * b.stride_inner)
    offs_row = tl.program_id(0) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    offs_column = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    mask_row, mask_column = offs_row < rows, offs_column < columns
    acc = tl.zeros((BLOCK_COLUMNS, BLOCK_COLUMNS), tl.float32)
    acc_bias = tl.zeros((BLOCK_COLUMNS,), tl.float32)
    for first in range(0, depth, BLOCK_COLUMNS):
        offs_k = (first + tl.arange(0, BLOCK_COLUMNS)).to(tl.int64)
        mask_k = offs_k < depth
        a_tile = tl.load(
            a_ptr + offs_k[None, :] * a.stride_row + offs_row[:, None],
            mask=mask_row[:, None] & mask_k[None, :],
            other=0.0,
        ).to(tl.float32)
        b_tile = tl.load(
            b_ptr + offs_k[:, None] * b.stride_row + offs_column[None, :],
            mask=mask_k[:, None] & mask_column[None, :],
            other=0.0,
        )
        if RELU:
            b_tile = tl.maximum(b_tile, 0.0)
        acc = tl.dot(a_tile, b_tile, acc, input_precision="ieee")
        acc_bias += tl.sum(a_tile, 1)
    offs = (matrix * rows + offs_row)[:, None] * columns + offs_column[None, :]
    tl.store(grad_ptr + offs, acc, mask=mask_row[:, None] & mask_column[None, :])
    if HAS_BIAS:
        mask_first = mask_row & (tl.program_id(1) == 0)
        tl.store(grad_bias_ptr + matrix * rows + offs_row, acc_bias, mask=mask_first)
