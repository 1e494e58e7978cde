"""Products, strips and attention of one tile: what forward and backward kernels of `part_attention` share."""

import triton
import triton.language as tl

from autoreid_fast.ops.part_attention import strips as op

PARTS = tl.constexpr(op.PARTS)


@triton.jit
def strip_of(height, width):
    """First pixel of strip m of image n, and its number of pixels, for program_id(0) = n PARTS + m."""
    row = tl.program_id(0)
    m = row % PARTS
    first = m * height // PARTS
    pixel = ((row // PARTS).to(tl.int64) * height + first) * width
    return pixel, ((m + 1) * height // PARTS - first) * width


@triton.jit
def product(
    acc,  # (rows, columns)
    a_ptr,
    offs_a,  # (rows,): where each row of a starts
    stride_a,  # from one element of a row to the next
    mask_row,
    b_ptr,
    offs_b,  # (columns,): where each column of b starts
    stride_b,
    mask_column,
    depth,
    RELU: tl.constexpr,
    BLOCK_DEPTH: tl.constexpr,
):
    """acc + a b, or acc + relu(a) b where RELU, summed over `depth` elements."""
    for first in range(0, depth, BLOCK_DEPTH):
        offs_k = first + tl.arange(0, BLOCK_DEPTH)
        mask_k = offs_k < depth
        a = tl.load(
            a_ptr + offs_a[:, None] + offs_k[None, :] * stride_a,
            mask=mask_row[:, None] & mask_k[None, :],
            other=0.0,
        ).to(tl.float32)
        if RELU:
            a = tl.maximum(a, 0.0)
        b = tl.load(
            b_ptr + offs_k[:, None] * stride_b + offs_b[None, :],
            mask=mask_k[:, None] & mask_column[None, :],
            other=0.0,
        )
        acc = tl.dot(a, b, acc, input_precision="ieee")
    return acc


@triton.jit
def linear(
    f_ptr,  # (N M, h) of one edge
    weight_ptr,  # (h, h)
    bias_ptr,  # (h,)
    offs_row,
    mask_row,
    offs_h,
    hidden,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Columns `offs_h` of f weight^T + bias: keys or queries."""
    mask_h = offs_h < hidden
    bias = tl.load(bias_ptr + offs_h, mask=mask_h, other=0.0)
    acc = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32) + bias[None, :]
    return product(
        acc, f_ptr, offs_row * hidden, 1, mask_row, weight_ptr, offs_h * hidden, 1, mask_h, hidden, False,
        BLOCK_COLUMNS,
    )  # fmt: skip


@triton.jit
def load_tile(matrix_ptr, offs_row, mask_row, offs_h, hidden):
    """Rows `offs_row` and columns `offs_h` of a matrix (rows, h)."""
    mask = mask_row[:, None] & (offs_h < hidden)[None, :]
    return tl.load(matrix_ptr + offs_row[:, None] * hidden + offs_h[None, :], mask=mask, other=0.0)


@triton.jit
def attention_of(
    f_ptr,  # all pointers: of one edge
    key_weight_ptr,
    key_bias_ptr,
    query_weight_ptr,
    query_bias_ptr,
    offs_row,
    mask_row,
    hidden,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """A (BLOCK_ROWS, BLOCK_ROWS) of the images that the rows belong to: 0 between two images."""
    scores = tl.zeros((BLOCK_ROWS, BLOCK_ROWS), tl.float32)
    for first in range(0, hidden, BLOCK_COLUMNS):
        offs_h = first + tl.arange(0, BLOCK_COLUMNS)
        keys = linear(
            f_ptr, key_weight_ptr, key_bias_ptr, offs_row, mask_row, offs_h, hidden, BLOCK_ROWS, BLOCK_COLUMNS
        )
        queries = linear(
            f_ptr, query_weight_ptr, query_bias_ptr, offs_row, mask_row, offs_h, hidden,
            BLOCK_ROWS, BLOCK_COLUMNS,
        )  # fmt: skip
        scores = tl.dot(keys, tl.trans(queries), scores, input_precision="ieee")
    image = offs_row // PARTS
    scores = tl.where(image[:, None] == image[None, :], scores, float("-inf"))
    weights = tl.exp(scores - tl.max(scores, 1)[:, None])
    return weights / tl.sum(weights, 1)[:, None]
