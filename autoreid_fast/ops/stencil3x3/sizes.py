"""Sizes of `stencil3x3`, shared with the ops and kernels built on it."""

MAX_FILTERS = 64


def out_size(size: int, stride: int) -> int:
    """Height or width of every output: ceil(size / stride)."""
    return (size + stride - 1) // stride
