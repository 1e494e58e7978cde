"""Arrays that users pass to `evaluate`, as tensors."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation.inputs import ROWS_AT_ONCE, features_of, label_tensors

FEATURES = torch.zeros(3, 2)


def pids_of(query: Any, gallery: Any) -> tuple[list[int], list[int]]:
    labels = label_tensors(query, gallery, ("query_pids", "gallery_pids"), (FEATURES, FEATURES))
    assert all(side.dtype == torch.int64 for side in labels)
    return labels[0].tolist(), labels[1].tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_floats_keep_their_type(dtype: torch.dtype) -> None:
    assert features_of(FEATURES.to(dtype), "x").dtype == dtype


def test_other_forms_become_tensors() -> None:
    for values in (FEATURES.double(), FEATURES.numpy(), FEATURES.numpy().astype(">f4"), [[0.0, 0.0]] * 3):
        features = features_of(values, "x")
        assert features.dtype == torch.float32
        assert torch.equal(features, FEATURES)
    for values in ([1, 2, 3], np.array([1, 2, 3], np.int16), torch.tensor([1, 2, 3], dtype=torch.uint8)):
        labels = pids_of(values, [3, 2, 2])
        assert labels == ([1, 2, 3], [3, 2, 2])


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


@pytest.mark.parametrize("query", [["007", "+8", " -1"], np.array(["7", "8", "-1"]), [7, 8, -1]])
def test_whole_numbers_go_by_their_value(query: Any) -> None:
    assert pids_of(query, ["7", "00", "08"]) == ([7, 8, -1], [7, 0, 8])


def test_names_keep_junk_and_distractors() -> None:
    query, gallery = pids_of(["eve", "04", "bob"], ["-1", "4", "eve"])
    assert gallery[0] == -1
    assert (query[0], query[1]) == (gallery[2], gallery[1])
    assert len({*query, 0, -1}) == 5
    assert pids_of(["a", "b", "c"], [0, -1, 12])[1][:2] == [0, -1]


@pytest.mark.parametrize("base", [2**63 - 1, 2**64 - 3, 2**70])
def test_numbers_beyond_int64_stay_distinct(base: int) -> None:
    query, gallery = pids_of([base, base + 1, base + 2], [base + 2, -1, base])
    assert len(set(query)) == 3
    assert min(query) > 0
    assert gallery == [query[2], -1, query[0]]
    if base + 2 < 2**64:
        unsigned = np.array([base, base + 1, base + 2], np.uint64)
        assert pids_of(unsigned, [base + 2, -1, base]) == (query, gallery)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "", "b"], r"query_pids\[1\] is '': it is empty"),
        (["1", "2", "3.0"], r"query_pids\[2\] is '3.0': it is a fraction"),
        (["1", None, "2"], r"query_pids\[1\] is None: it is a NoneType"),
        (np.array([1.0, 2.0, 3.0]), "whole numbers or names.*float64"),
        (torch.tensor([1.0, 2.0, 3.0]), "whole numbers or names.*float32"),
        (torch.tensor([1j, 2j, 3j]), "whole numbers or names.*complex64"),
        ([1, 2.0, 3], r"query_pids\[1\] is 2.0: it is a float"),
        ([[1, 2, 3]], r"whole numbers or names.*\(1, 3\)"),
        ([1, 2], "query_pids has 2 entries for 3 features"),
    ],
)
def test_other_labels_are_named(labels: Any, message: str) -> None:
    with pytest.raises(AutoReIDError, match=message):
        pids_of(labels, [1, 2, 3])
