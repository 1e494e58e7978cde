"""Helpers of the case files: inputs in the shape of galleries, GEMM bounds, loading of peers."""
