"""Forward kernels of `part_attention`; csrc/part_attention/part_attention.h has the maths."""

import triton
import triton.language as tl

from autoreid_fast.kernels.part_attention.tiles import PARTS, attention_of, load_tile, product, strip_of


@triton.jit
def strip_means(
    x_ptr,  # (N, H, W, C)
    means_ptr,  # (N, M, C)
    height,
    width,
    channels,
    BLOCK_PIXELS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Write the means of one strip (program_id 0) and one block of channels."""
    pixel, pixels = strip_of(height, width)
    offs_c = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    mask_c = offs_c < channels
    acc = tl.zeros((BLOCK_PIXELS, BLOCK_COLUMNS), tl.float32)
    for first in range(0, pixels, BLOCK_PIXELS):
        offs_p = first + tl.arange(0, BLOCK_PIXELS)
        tile_ptr = x_ptr + (pixel + offs_p)[:, None] * channels + offs_c[None, :]
        mask = (offs_p < pixels)[:, None] & mask_c[None, :]
        acc += tl.load(tile_ptr, mask=mask, other=0.0).to(tl.float32)
    mean = tl.sum(acc, 0) / pixels
    tl.store(means_ptr + tl.program_id(0).to(tl.int64) * channels + offs_c, mean, mask=mask_c)


@triton.jit
def project(
    means_ptr,  # (N, M, C)
    project_weight_ptr,  # (E, M, h, C)
    project_bias_ptr,  # (E, M, h)
    statistics_ptr,  # (2, E, M, h), read unless BATCH_STATISTICS
    normalized_ptr,  # (E, N, M, h)
    norm_statistics_ptr,  # (2, E, M, h): the means and variances that normalise
    eps,
    images,
    channels,
    hidden,
    strip_count,  # E M
    BATCH_STATISTICS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Write the normalised projections of strip e M + m = program_id(0) in one block of h, for all images."""
    strip = tl.program_id(0).to(tl.int64)
    m = strip % PARTS
    offs_h = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    mask_h = offs_h < hidden
    strip_ptr = normalized_ptr + ((strip // PARTS) * images * PARTS + m) * hidden + offs_h[None, :]
    mean = tl.zeros((BLOCK_COLUMNS,), tl.float32)
    for first in range(0, images, BLOCK_ROWS):
        offs_n = (first + tl.arange(0, BLOCK_ROWS)).to(tl.int64)
        mask_n = offs_n < images
        mask = mask_n[:, None] & mask_h[None, :]
        value = product(
            tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32),
            means_ptr + m * channels, offs_n * (PARTS * channels), 1, mask_n,
            project_weight_ptr + strip * hidden * channels, offs_h * channels, 1, mask_h,
            channels, True, BLOCK_COLUMNS,
        )  # fmt: skip
        value += tl.load(project_bias_ptr + strip * hidden + offs_h, mask=mask_h, other=0.0)[None, :]
        tl.store(strip_ptr + offs_n[:, None] * PARTS * hidden, value, mask=mask)
        mean += tl.sum(tl.where(mask, value, 0.0), 0)
    tl.debug_barrier()  # below, threads read what other threads stored
    if BATCH_STATISTICS:
        mean = mean / images
        variance = tl.zeros((BLOCK_COLUMNS,), tl.float32)
        for first in range(0, images, BLOCK_ROWS):
            offs_n = (first + tl.arange(0, BLOCK_ROWS)).to(tl.int64)
            mask = (offs_n < images)[:, None] & mask_h[None, :]
            value = tl.load(strip_ptr + offs_n[:, None] * PARTS * hidden, mask=mask, other=0.0)
            deviation = tl.where(mask, value - mean[None, :], 0.0)
            variance += tl.sum(deviation * deviation, 0)
        variance = variance / images
    else:
        mean = tl.load(statistics_ptr + strip * hidden + offs_h, mask=mask_h, other=0.0)
        variance = tl.load(statistics_ptr + (strip_count + strip) * hidden + offs_h, mask=mask_h, other=1.0)
    tl.store(norm_statistics_ptr + strip * hidden + offs_h, mean, mask=mask_h)
    tl.store(norm_statistics_ptr + (strip_count + strip) * hidden + offs_h, variance, mask=mask_h)
    rstd = tl.rsqrt(variance + eps)
    for first in range(0, images, BLOCK_ROWS):
        offs_n = (first + tl.arange(0, BLOCK_ROWS)).to(tl.int64)
        mask = (offs_n < images)[:, None] & mask_h[None, :]
        tile_ptr = strip_ptr + offs_n[:, None] * PARTS * hidden
        value = tl.load(tile_ptr, mask=mask, other=0.0)
        tl.store(tile_ptr, (value - mean[None, :]) * rstd[None, :], mask=mask)


@triton.jit
def scale_and_shift(
    normalized_ptr,  # (E, N, M, h)
    affine_ptr,  # (2, E, M, h): scale and shift
    f_ptr,  # (E, N, M, h)
    hidden,
    strip_count,  # E M
    BLOCK_COLUMNS: tl.constexpr,
):
    """Write f = scale normalized + shift for row n M + m = program_id(0) of edge program_id(1)."""
    edge, row = tl.program_id(1).to(tl.int64), tl.program_id(0).to(tl.int64)
    offs_row = (edge * tl.num_programs(0) + row) * hidden
    offs_strip = (edge * PARTS + row % PARTS) * hidden
    for first in range(0, hidden, BLOCK_COLUMNS):
        offs_h = first + tl.arange(0, BLOCK_COLUMNS)
        mask_h = offs_h < hidden
        scale = tl.load(affine_ptr + offs_strip + offs_h, mask=mask_h, other=0.0)
        shift = tl.load(affine_ptr + strip_count * hidden + offs_strip + offs_h, mask=mask_h, other=0.0)
        value = tl.load(normalized_ptr + offs_row + offs_h, mask=mask_h, other=0.0)
        tl.store(f_ptr + offs_row + offs_h, value * scale + shift, mask=mask_h)


@triton.jit
def attend(
    f_ptr,  # (E, N M, h)
    key_weight_ptr,  # (E, h, h)
    key_bias_ptr,  # (E, h)
    query_weight_ptr,  # (E, h, h)
    query_bias_ptr,  # (E, h)
    fuse_weight_ptr,  # (E, D, h)
    strip_bias_ptr,  # (E, N M, D)
    rows,  # N M
    hidden,
    out_channels,  # D
    RELU_PART: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
):
    """Write the strip bias of one block of rows (program_id 0) of edge program_id(1)."""
    edge = tl.program_id(1).to(tl.int64)
    offs_row = (tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)).to(tl.int64)
    mask_row = offs_row < rows
    f_ptr += edge * rows * hidden
    offs_weight, offs_bias = edge * hidden * hidden, edge * hidden
    attention = attention_of(
        f_ptr, key_weight_ptr + offs_weight, key_bias_ptr + offs_bias, query_weight_ptr + offs_weight,
        query_bias_ptr + offs_bias, offs_row, mask_row, hidden, BLOCK_ROWS, BLOCK_COLUMNS,
    )  # fmt: skip
    fuse_weight_ptr += edge * out_channels * hidden
    for first_d in range(0, out_channels, BLOCK_COLUMNS):
        offs_d = first_d + tl.arange(0, BLOCK_COLUMNS)
        mask_d = offs_d < out_channels
        acc = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
        for first in range(0, hidden, BLOCK_COLUMNS):
            offs_h = first + tl.arange(0, BLOCK_COLUMNS)
            f = load_tile(f_ptr, offs_row, mask_row, offs_h, hidden)
            part = tl.dot(attention, f, input_precision="ieee")
            if RELU_PART:
                part = tl.maximum(part, 0.0)
            mask = (offs_h < hidden)[:, None] & mask_d[None, :]
            weight_ptr = fuse_weight_ptr + offs_d[None, :] * hidden + offs_h[:, None]
            weight = tl.load(weight_ptr, mask=mask, other=0.0)
            acc = tl.dot(part, weight, acc, input_precision="ieee")
        tile_ptr = strip_bias_ptr + (edge * rows + offs_row)[:, None] * out_channels + offs_d[None, :]
        mask = mask_row[:, None] & mask_d[None, :]
        tl.store(tile_ptr, acc.to(strip_bias_ptr.dtype.element_ty), mask=mask)
