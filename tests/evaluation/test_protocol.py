"""The Market-1501 protocol on labels."""

from itertools import pairwise
from typing import get_args

import pytest
import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation.protocol import Labels, Metric, Thresholds, order_thresholds, relevance_of
from autoreid_fast.evaluation.ranking import rank_distances
from autoreid_fast.ops.keys import METRICS

LABELS = Labels(
    torch.tensor([1, 2, -1, 3]),
    torch.tensor([2, 1, -1, 1, 0, 1]),
    torch.tensor([1, 1, 1, 2]),
    torch.tensor([2, 1, 1, 2, 1, 3]),
)


def rows(offsets: Tensor, entries: Tensor) -> list[list[int]]:
    return [entries[first:last].tolist() for first, last in pairwise(offsets.tolist())]


def test_metrics_are_those_of_the_ops() -> None:
    assert get_args(Metric) == METRICS


def test_relevance() -> None:
    relevance = relevance_of(LABELS)
    assert rows(relevance.match_offsets, relevance.matches) == [[3, 5], [0], [], []]
    assert rows(relevance.excluded_offsets, relevance.excluded) == [[1], [], [], []]
    assert relevance.valid.tolist() == [True, True, False, True, True, True]
    assert relevance.entries.tolist() == [4, 5, 5, 5]
    assert relevance.ranked_by(0).nonzero().flatten().tolist() == [0, 3, 4, 5]
    assert relevance.matching(0).nonzero().flatten().tolist() == [3, 5]
    assert relevance.valid.tolist() == [True, True, False, True, True, True]  # not changed by ranked_by


def test_relevance_without_cameras() -> None:
    relevance = relevance_of(Labels(*LABELS[:2]))
    assert rows(relevance.match_offsets, relevance.matches) == [[1, 3, 5], [0], [], []]
    assert len(relevance.excluded) == 0
    assert relevance.entries.tolist() == [5, 5, 5, 5]


def test_rows_and_shards() -> None:
    relevance = relevance_of(LABELS)
    some = relevance.rows(0, 2)
    assert rows(some.match_offsets, some.matches) == [[3, 5], [0]]
    assert rows(relevance.rows(1, 3).match_offsets, relevance.rows(1, 3).matches) == [[0], []]
    shard = relevance_of(LABELS.shard(3, 6))
    assert rows(shard.match_offsets, shard.matches) == [[0, 2], [], [], []]
    assert shard.entries.tolist() == [3, 3, 3, 3]


def test_thresholds() -> None:
    """By query, then key, then index, whatever the order of the matches."""
    thresholds = order_thresholds(
        3,
        rows=torch.tensor([2, 0, 2, 2, 0]),
        keys=torch.tensor([1.0, 5.0, 1.0, 0.5, 4.0]),
        indices=torch.tensor([7, 0, 3, 9, 1]),
    )
    assert thresholds.offsets.tolist() == [0, 2, 2, 5]
    assert thresholds.keys.tolist() == [4, 5, 0.5, 1, 1]
    assert thresholds.indices.tolist() == [1, 0, 9, 3, 7]
    last = thresholds.rows(1, 3)
    expected = Thresholds(torch.tensor([0, 0, 3]), thresholds.keys[2:], thresholds.indices[2:])
    assert all(torch.equal(actual, wanted) for actual, wanted in zip(last, expected, strict=True))


WRONG = {
    "query_pids": LABELS.query_pids.int(),
    "gallery_pids": LABELS.gallery_pids[None],
    "query_cams": LABELS.gallery_cams,
    "gallery_cams": LABELS.gallery_pids.float(),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_labels_are_named(name: str) -> None:
    with pytest.raises(AutoReIDError, match=f"`{name}` .*; expected "):
        relevance_of(LABELS._replace(**{name: WRONG[name]}))
    elsewhere = LABELS._replace(**{name: getattr(LABELS, name).to("meta")})
    with pytest.raises(AutoReIDError, match=r"is on .*; expected "):
        relevance_of(elsewhere)


def test_cameras_of_one_side_are_refused() -> None:
    for name in ("query_cams", "gallery_cams"):
        with pytest.raises(AutoReIDError, match="both or neither"):
            relevance_of(LABELS._replace(**{name: None}))


@pytest.mark.parametrize(
    "block", [torch.rand(4, 5), torch.rand(3, 6), torch.rand(4, 6).double(), torch.rand(4)]
)
def test_wrong_distances_are_named(block: Tensor) -> None:
    relevance = relevance_of(LABELS)
    assert rank_distances(torch.rand(4, 6), relevance).entries.tolist() == [4, 5, 5, 5]
    with pytest.raises(AutoReIDError, match=r"`block` .*; expected "):
        rank_distances(block, relevance)
