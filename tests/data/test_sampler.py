"""The identity sampler and the split into halves: composition, frequencies, reproducibility."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, TensorDataset

from autoreid_fast.data.batches import relabel
from autoreid_fast.data.dataset import ImageRecord, split_half
from autoreid_fast.data.sampler import IdentitySampler
from autoreid_fast.errors import AutoReIDError

EPOCH_1_OF_SEED_7 = [[10, 1, 12, 12], [6, 0, 5, 2], [12, 12, 9, 0]]

Sizes = st.lists(st.integers(1, 9), min_size=3, max_size=12)


def shuffled_labels(sizes: list[int]) -> torch.Tensor:
    """Labels with ``sizes[i]`` images of identity i, shuffled."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return torch.from_numpy(np.random.default_rng(0).permutation(labels))


@settings(max_examples=50, deadline=None)
@given(sizes=Sizes, p=st.integers(1, 3), k=st.integers(1, 5), seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_every_batch_has_k_images_of_p_identities(
    sizes: list[int], p: int, k: int, seed: int, epoch: int
) -> None:
    labels = shuffled_labels(sizes)
    sampler = IdentitySampler(labels, p, k, seed)
    batches = list(sampler.epoch(epoch))
    assert len(batches) == len(sampler) == max(1, len(labels) // (p * k))
    for batch in batches:
        assert batch.shape == (p * k,)
        assert batch.dtype == np.int64
        by_identity = labels.numpy()[batch].reshape(p, k)
        assert (by_identity == by_identity[:, :1]).all()
        assert len(set(by_identity[:, 0])) == p
        for identity, images in zip(by_identity[:, 0], batch.reshape(p, k), strict=True):
            counts = Counter(images.tolist())
            assert len(counts) == min(k, sizes[identity])  # all different, or all that there are
            assert max(counts.values()) == -(-k // sizes[identity])
    again = list(IdentitySampler(labels, p, k, seed).epoch(epoch))
    np.testing.assert_array_equal(batches, again)


def test_the_sequence_is_the_same_as_in_earlier_versions() -> None:
    """A run that an earlier version started must resume with the same batches."""
    labels = torch.tensor([0, 1, 2] * 4 + [3])
    batches = list(IdentitySampler(labels, 2, 2, seed=7).epoch(1))
    assert [batch.tolist() for batch in batches] == EPOCH_1_OF_SEED_7


def test_a_loader_gets_epoch_after_epoch() -> None:
    labels = shuffled_labels([4] * 6)
    sampler = IdentitySampler(labels, 2, 2, 3)
    loader = DataLoader(TensorDataset(torch.arange(24), labels), batch_sampler=sampler)
    assert len(loader) == len(sampler) == 6
    for epoch in (0, 1):
        indices = [batch[0].tolist() for batch in loader]
        assert indices == [batch.tolist() for batch in sampler.epoch(epoch)]
    sampler.set_epoch(1)
    assert [batch[0].tolist() for batch in loader] == indices
    assert all(isinstance(index, int) for index in next(iter(sampler)))


@pytest.mark.parametrize("labels", [[0, 0, 1, 1], np.array([0, 0, 1, 1]), torch.tensor([0, 0, 1, 1])])
def test_labels_may_be_any_sequence(labels: object) -> None:
    assert len(list(IdentitySampler(labels, 2, 2))) == 1


def test_epochs_do_not_depend_on_earlier_draws() -> None:
    labels = shuffled_labels([4] * 10)
    used = IdentitySampler(labels, 2, 4, 5)
    list(used.epoch(0))
    next(iter(used.epoch(1)))
    np.testing.assert_array_equal(list(used.epoch(3)), list(IdentitySampler(labels, 2, 4, 5).epoch(3)))
    first = np.array(list(used.epoch(0)))
    assert not np.array_equal(first, list(used.epoch(1)))
    assert not np.array_equal(first, list(IdentitySampler(labels, 2, 4, 6).epoch(0)))


def test_a_pass_repeats_no_identity_and_leaves_out_less_than_a_batch() -> None:
    labels = shuffled_labels([8] * 11)
    batches = list(IdentitySampler(labels, 3, 2, 0).epoch(0))
    assert len(batches) == 14
    for start in range(0, 12, 3):  # 11 identities in batches of 3: a pass is 3 batches
        seen = {label for batch in batches[start : start + 3] for label in labels.numpy()[batch].tolist()}
        assert len(seen) == 9


def test_identities_are_equally_likely_whatever_their_size() -> None:
    """7 identities of 2 to 60 images in batches of 3: binomial counts within 5 standard deviations."""
    sizes = [2, 3, 60, 4, 5, 20, 8]
    labels = shuffled_labels(sizes)
    sampler = IdentitySampler(labels, 3, 2, 0)
    counts: Counter[int] = Counter()
    images: Counter[int] = Counter()
    draws = 0
    for epoch in range(60):
        for batch in sampler.epoch(epoch):
            draws += 1
            counts.update(set(labels.numpy()[batch].tolist()))
            images.update(batch.tolist())
    expected = draws * 3 / 7
    assert all(abs(counts[i] - expected) < 5 * (expected * 4 / 7) ** 0.5 for i in range(7))
    assert len(images) == sum(sizes)  # every image is drawn
    counts_of_largest = [images[index] for index in np.flatnonzero(labels.numpy() == 2).tolist()]
    assert max(counts_of_largest) < 4 * min(counts_of_largest) + 10


def test_only_the_subset_is_drawn() -> None:
    labels = shuffled_labels([6] * 8)
    subset = np.sort(np.random.default_rng(1).permutation(48)[:30])
    sampler = IdentitySampler(labels, 2, 3, 0, subset)
    drawn = {index for epoch in range(20) for batch in sampler.epoch(epoch) for index in batch.tolist()}
    assert drawn == set(subset.tolist())
    assert len(sampler) == 5


@pytest.mark.parametrize(
    ("p", "k", "message"),
    [
        (4, 4, r"identities_per_batch \(batch\.identities\) 4: expected at most 3, the number of identities"),
        (0, 4, "identities_per_batch 0: expected at least 1"),
        (2, 0, "images_per_identity 0: expected at least 1"),
    ],
)
def test_impossible_batches(p: int, k: int, message: str) -> None:
    with pytest.raises(AutoReIDError, match=message):
        IdentitySampler(shuffled_labels([5, 5, 5]), p, k, 0)


def test_no_images() -> None:
    with pytest.raises(AutoReIDError, match="expected at most 0, the number of identities"):
        IdentitySampler(torch.empty(0, dtype=torch.int64), 2, 2, 0)


@settings(max_examples=50, deadline=None)
@given(sizes=Sizes, seed=st.integers(0, 9))
def test_halves_divide_images_and_identities_evenly(sizes: list[int], seed: int) -> None:
    pids = shuffled_labels(sizes).numpy() * 7 + 3
    records = [ImageRecord(str(number), int(pid), 1) for number, pid in enumerate(pids)]
    first, second = split_half(records, seed)
    assert first.dtype == second.dtype == np.int64
    assert sorted([*first, *second]) == list(range(len(records)))
    assert abs(len(first) - len(second)) <= 1
    for pid, size in zip(np.arange(len(sizes)) * 7 + 3, sizes, strict=True):
        in_first = int((pids[first] == pid).sum())
        assert in_first in (size // 2, size - size // 2)
    again = split_half(records, seed)
    np.testing.assert_array_equal(first, again[0])
    np.testing.assert_array_equal(second, again[1])


def test_halves_depend_on_the_seed() -> None:
    records = [ImageRecord(str(number), number // 8, 1) for number in range(80)]
    assert not np.array_equal(split_half(records, 0)[0], split_half(records, 1)[0])


def test_relabel() -> None:
    labels = relabel([ImageRecord("", pid, 1) for pid in (30, 2, 30, 1501, 7)])
    assert labels.tolist() == [2, 0, 2, 3, 1]
    assert labels.dtype == torch.int64
