"""Checked tensors from the arrays that users pass to `evaluate` and `k_reciprocal`."""

import re
import reprlib
from numbers import Integral
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
import torch

from autoreid_fast.data.dataset import DISTRACTOR, JUNK
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.schema import whole_number

ROWS_AT_ONCE = 8192  # of features, which may be memory-mapped
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
LOWEST, HIGHEST = -(2**63), 2**63 - 1
WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+")
FRACTION = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|nan", re.IGNORECASE)


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
            raise AutoReIDError(
                f"{name} has NaN or infinity in row {row}: expected finite features; the network that gave "
                "them may have NaN in its weights"
            )
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def label_tensors(
    query: Any, gallery: Any, names: tuple[str, str], features: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """(Q,) and (G,) int64 labels, one per row of the features, on their devices.

    Whole numbers go by their value, also as text: ``0003`` is 3, -1 is junk and 0 a distractor. Other text is
    a name. If there are names, or numbers beyond int64, all labels but -1 and 0 are numbered from 1.

    Args:
        query: whole numbers, names or both.
        gallery: the same.
        names: names of the two arguments, for errors.
        features: features of the queries and the gallery.

    Raises:
        AutoReIDError: not a 1-d array of whole numbers and names, or of another length than its features.
    """
    query_rows, gallery_rows = features
    query_labels = _labels(query, names[0], len(query_rows))
    gallery_labels = _labels(gallery, names[1], len(gallery_rows))
    if isinstance(query_labels, list) or isinstance(gallery_labels, list):
        query_labels, gallery_labels = _numbered(query_labels, gallery_labels)
    return query_labels.to(query_rows.device), gallery_labels.to(gallery_rows.device)


def label_of(text: str) -> int | str:
    """Read a label: a whole number by its value, anything else as a name.

    Raises:
        ValueError: the label is empty, a fraction, or a number of more than `MAX_DIGITS` digits.

    Examples:
        >>> label_of("0003"), label_of("-1"), label_of("anna")
        (3, -1, 'anna')
    """
    text = text.strip()
    if not text:
        raise ValueError("it is empty")
    if FRACTION.fullmatch(text):
        raise ValueError("it is a fraction")
    return whole_number(text) if WHOLE_NUMBER.fullmatch(text) else text


def _labels(values: Any, name: str, count: int) -> torch.Tensor | list[int | str]:
    """The labels of one side: int64 if all are integers within its bounds, otherwise a list."""
    if isinstance(values, torch.Tensor) and values.dtype != torch.uint64:
        tensor = _dense(values, name)
        _check_labels(tensor, not (tensor.is_floating_point() or tensor.is_complex()), name, count)
        return tensor.to(torch.int64)
    array = _array_of(values, name)
    if array.dtype.kind == "f" and isinstance(values, list | tuple):
        array = np.array(values, dtype=object)  # NumPy takes large integers for floats
    _check_labels(array, array.dtype.kind in "biuUO", name, count)
    if array.dtype.kind in "UO":
        return [_label(value, f"{name}[{index}]") for index, value in enumerate(array.tolist())]
    if array.dtype.kind == "u" and array.max(initial=0) > HIGHEST:
        numbers: list[int | str] = array.tolist()
        return numbers
    return torch.from_numpy(array.astype(np.int64))


def _check_labels(labels: torch.Tensor | np.ndarray, right_type: bool, name: str, count: int) -> None:
    if labels.ndim != 1 or not right_type:
        raise AutoReIDError(
            f"{name} must be a 1-d array of whole numbers or names; got shape {tuple(labels.shape)}, "
            f"{str(labels.dtype).removeprefix('torch.')}"
        )
    if len(labels) != count:
        raise AutoReIDError(f"{name} has {len(labels)} entries for {count} features")


def _label(value: Any, name: str) -> int | str:
    try:
        if isinstance(value, str):
            return label_of(value)
        if not isinstance(value, Integral):
            raise ValueError(f"it is a {type(value).__name__}")
        return int(value)
    except ValueError as error:
        shown = reprlib.repr(value)
        raise AutoReIDError(f"{name} is {shown}: {error}; expected a whole number or a name") from None


def _numbered(
    query: torch.Tensor | list[int | str], gallery: torch.Tensor | list[int | str]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The labels as int64: by their values, or numbered where one is a name or beyond int64."""
    both = [side.tolist() if isinstance(side, torch.Tensor) else side for side in (query, gallery)]
    labels = {*both[0], *both[1]}
    if all(isinstance(label, int) and LOWEST <= label <= HIGHEST for label in labels):
        codes = {label: int(label) for label in labels}
    else:
        others = sorted(labels - {JUNK, DISTRACTOR}, key=str)
        codes = {label: number for number, label in enumerate(others, 1)}
        codes |= {JUNK: JUNK, DISTRACTOR: DISTRACTOR}
    query_labels, gallery_labels = (torch.tensor([codes[label] for label in side]) for side in both)
    return query_labels, gallery_labels


def _tensor_of(values: Any, name: str) -> torch.Tensor:
    if isinstance(values, torch.Tensor):
        return _dense(values, name)
    array = _array_of(values, name)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    with catch_warnings():
        simplefilter("ignore", UserWarning)  # a read-only memory map is never written to
        try:
            return torch.from_numpy(np.ascontiguousarray(array))
        except TypeError:
            raise AutoReIDError(f"{name} must hold numbers; got an array of {array.dtype}") from None


def _array_of(values: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError:
        raise AutoReIDError(f"{name} must be an array; got a list of rows of different lengths") from None


def _dense(tensor: torch.Tensor, name: str) -> torch.Tensor:
    if tensor.is_meta or tensor.layout != torch.strided:
        raise AutoReIDError(f"{name} must be a dense tensor; got {tensor.layout} on {tensor.device}")
    return tensor.detach()


def _describe(tensor: torch.Tensor) -> str:
    return f"shape {tuple(tensor.shape)}, {str(tensor.dtype).removeprefix('torch.')}"
