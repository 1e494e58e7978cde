"""Checked tensors from the arrays that users pass to `evaluate` and `k_reciprocal`."""

from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
import torch

from autoreid_fast.errors import AutoReIDError

ROWS_AT_ONCE = 8192  # of features, which may be memory-mapped
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def features_of(values: Any, name: str) -> torch.Tensor:
    """(N, D) float32, float16 or bfloat16 tensor of finite features; float64 is rounded to float32.

    Raises:
        AutoReIDError: not a 2-d array of floats, empty, or not finite; the message calls it ``name``.
    """
    tensor = _tensor_of(values, name)
    if tensor.ndim != 2 or tensor.dtype not in FLOATS:
        raise AutoReIDError(f"{name} must be a 2-d float array, one row per image; got {_describe(tensor)}")
    if not tensor.numel():
        raise AutoReIDError(f"{name} is empty: shape {tuple(tensor.shape)}")
    for start in range(0, len(tensor), ROWS_AT_ONCE):
        finite = tensor[start : start + ROWS_AT_ONCE].isfinite().all(dim=1)
        if not finite.all():
            row = start + int((~finite).nonzero()[0])
            raise AutoReIDError(f"{name} has NaN or infinity in row {row}: extract the features again")
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def labels_of(values: Any, features: torch.Tensor, name: str) -> torch.Tensor:
    """(N,) int64 labels, one per row of ``features``, on their device.

    Raises:
        AutoReIDError: not a 1-d array of integers, or of another length; the message calls it ``name``.
    """
    tensor = _tensor_of(values, name)
    if tensor.ndim != 1 or tensor.is_floating_point() or tensor.is_complex():
        raise AutoReIDError(f"{name} must be a 1-d integer array; got {_describe(tensor)}")
    if len(tensor) != len(features):
        raise AutoReIDError(f"{name} has {len(tensor)} entries for {len(features)} features")
    return tensor.to(features.device, torch.int64)


def _tensor_of(values: Any, name: str) -> torch.Tensor:
    if isinstance(values, torch.Tensor):
        if values.is_meta or values.layout != torch.strided:
            raise AutoReIDError(f"{name} must be a dense tensor; got {values.layout} on {values.device}")
        return values.detach()
    try:
        array = np.asarray(values)
    except ValueError:
        raise AutoReIDError(f"{name} must be an array; got a list of rows of different lengths") from None
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    with catch_warnings():
        simplefilter("ignore", UserWarning)  # a read-only memory map is never written to
        try:
            return torch.from_numpy(np.ascontiguousarray(array))
        except TypeError:
            raise AutoReIDError(f"{name} must hold numbers; got an array of {array.dtype}") from None


def _describe(tensor: torch.Tensor) -> str:
    return f"shape {tuple(tensor.shape)}, {str(tensor.dtype).removeprefix('torch.')}"
