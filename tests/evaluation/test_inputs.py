"""Arrays that users pass to `evaluate`, as tensors."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation.inputs import ROWS_AT_ONCE, features_of, labels_of

FEATURES = torch.zeros(3, 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_floats_keep_their_type(dtype: torch.dtype) -> None:
    assert features_of(FEATURES.to(dtype), "x").dtype == dtype


def test_other_forms_become_tensors() -> None:
    for values in (FEATURES.double(), FEATURES.numpy(), FEATURES.numpy().astype(">f4"), [[0.0, 0.0]] * 3):
        features = features_of(values, "x")
        assert features.dtype == torch.float32
        assert torch.equal(features, FEATURES)
    for values in ([1, 2, 3], np.array([1, 2, 3], np.int16), torch.tensor([1, 2, 3], dtype=torch.uint8)):
        labels = labels_of(values, FEATURES, "pids")
        assert labels.dtype == torch.int64
        assert labels.tolist() == [1, 2, 3]


def test_gradients_are_not_kept() -> None:
    assert not features_of(FEATURES.clone().requires_grad_(), "x").requires_grad


def test_memory_maps_are_read_without_a_warning(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", FEATURES.numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(features_of(np.load(tmp_path / "x.npy", mmap_mode="r"), "x"), FEATURES)


@pytest.mark.parametrize("row", [0, 1, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, ROWS_AT_ONCE + 7])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_values_that_are_not_finite_are_named_by_their_row(row: int, value: float) -> None:
    features = np.zeros((ROWS_AT_ONCE + 8, 2), np.float32)
    features[row, 1] = value
    with pytest.raises(AutoReIDError, match=rf"x has NaN or infinity in row {row}: "):
        features_of(features, "x")


def test_labels_must_be_numbers() -> None:
    with pytest.raises(AutoReIDError, match="pids must hold numbers; got an array of <U1"):
        labels_of(np.array(["a"] * 3), FEATURES, "pids")
