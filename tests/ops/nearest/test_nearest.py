"""`ops.nearest`: distances and indices equal those of a NumPy sort, ties by index."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autoreid_fast import ops
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.evaluation.protocol import Labels
from autoreid_fast.evaluation.ranking import rank_gallery
from autoreid_fast.ops.keys import METRICS

SMALL = settings(deadline=None, max_examples=40, derandomize=True)


def exact_features(count: int, dim: int, seed: int) -> Tensor:
    """Rows with 4 entries of 1 or -1, so that float32 is exact for every metric and ties are frequent."""
    random = np.random.default_rng(seed)
    rows = np.zeros((count, max(dim, 4)), dtype=np.float32)
    for row in rows:
        row[random.choice(min(len(row), 6), 4, replace=False)] = random.choice([-1, 1], 4)
    return torch.from_numpy(rows)


def truth(query: Tensor, gallery: Tensor, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    q, g = query.double().numpy(), gallery.double().numpy()
    if metric == "cosine":
        q, g = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, g))
        distances = 1 - q @ g.T
    else:
        distances = ((q[:, None] - g[None]) ** 2).sum(-1)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    distances = np.take_along_axis(distances, order, 1)
    return (np.sqrt(distances) if metric == "euclidean" else distances), order


def check(query: Tensor, gallery: Tensor, k: int, metric: str) -> None:
    distances, indices = truth(query, gallery, k, metric)
    actual = ops.nearest(query, gallery, k, metric)
    assert actual.distances.dtype == torch.float32 and actual.indices.dtype == torch.int64
    np.testing.assert_array_equal(actual.indices.numpy(), indices)
    np.testing.assert_allclose(actual.distances.numpy(), distances, rtol=2e-5, atol=2e-6)


@SMALL
@given(
    num_query=st.integers(1, 40),
    num_gallery=st.integers(1, 800),
    dim=st.integers(1, 30),
    fraction=st.floats(0, 1),
    metric=st.sampled_from(METRICS),
    seed=st.integers(0, 10**6),
)
def test_ties_equal_numpy(
    num_query: int, num_gallery: int, dim: int, fraction: float, metric: str, seed: int
) -> None:
    query, gallery = exact_features(num_query, dim, seed), exact_features(num_gallery, dim, seed + 1)
    check(query, gallery, max(1, round(fraction * num_gallery)), metric)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 20, 700, 1000])
def test_every_path_equals_numpy(backend: str, metric: str, k: int) -> None:
    check(exact_features(19, 9, 0), exact_features(1500, 9, 1), k, metric)
    if backend == "reference" or k < 700:  # float32 may swap entries of nearly the same distance
        check(torch.randn(9, 40), torch.randn(1000, 40), k, metric)


def test_order_of_arrival_does_not_matter(backend: str) -> None:
    """Falling, rising and constant distances, through a buffer of candidates that is pruned many times."""
    falling = torch.arange(9000, 0, -1).float()[:, None]
    query = torch.zeros(3, 1)
    assert ops.nearest(query, falling, 5).indices.tolist() == [[8999, 8998, 8997, 8996, 8995]] * 3
    assert ops.nearest(query, falling.flip(0), 5).indices.tolist() == [[0, 1, 2, 3, 4]] * 3
    assert ops.nearest(query, torch.ones_like(falling), 5).indices.tolist() == [[0, 1, 2, 3, 4]] * 3


def test_given_distances(backend: str) -> None:
    block = torch.randint(-20, 20, (30, 2000)).float()
    block[0, :] = torch.inf
    block[1, 100] = -torch.inf
    block[2, ::2] = -0.0
    block[2, 1::2] = 0.0
    for layout in (block, torch.cat([block, block], 1)[:, :2000], block.t().contiguous().t()):
        for k in (1, 37, 1000):
            actual = ops.nearest_block(layout, k)
            order = np.argsort(block.numpy(), axis=1, kind="stable")[:, :k]
            np.testing.assert_array_equal(actual.indices.numpy(), order)
            assert torch.equal(actual.distances, block.gather(1, actual.indices))


def test_agrees_with_the_ranks() -> None:
    """The rank of a match is its position among the nearest: both ops use the same keys, bit for bit."""
    query, gallery = torch.randn(20, 65), torch.randn(900, 65)
    pids = torch.arange(20), torch.arange(900) % 60
    ranks = rank_gallery(query, gallery, Labels(*pids))
    nearest = ops.nearest(query, gallery, 900).indices
    matched = (pids[1][nearest] == pids[0][:, None]).nonzero()
    assert torch.equal(matched[:, 1] + 1, ranks.ranks)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_widened(backend: str, dtype: torch.dtype) -> None:
    query, gallery = torch.randn(5, 33).to(dtype), torch.randn(300, 33).to(dtype)
    actual, widened = ops.nearest(query, gallery, 9), ops.nearest(query.float(), gallery.float(), 9)
    assert all(torch.equal(a, b) for a, b in zip(actual, widened, strict=True))


def test_strides_and_every_element_written(backend: str) -> None:
    wide = torch.randn(400, 50)
    torch.use_deterministic_algorithms(True)
    try:
        for x in (wide[::2, 3:40], wide[:, ::2], wide.t()):
            actual, expected = ops.nearest(x[:7], x, 10), ops.nearest(x[:7].contiguous(), x.contiguous(), 10)
            assert torch.equal(actual.indices, expected.indices)
            # the reference's float64 BLAS may add in an order that depends on the layout
            atol = 1e-5 if backend == "reference" else 0
            torch.testing.assert_close(actual.distances, expected.distances, rtol=0, atol=atol)
            assert actual.indices[:, 0].tolist() == list(range(7))
    finally:
        torch.use_deterministic_algorithms(False)


def test_no_queries(backend: str) -> None:
    assert ops.nearest(torch.randn(0, 3), torch.randn(5, 3), 2).indices.shape == (0, 2)


def test_nothing_is_differentiable(backend: str) -> None:
    x = torch.randn(6, 3, requires_grad=True)
    assert not ops.nearest(x, x, 2).distances.requires_grad
    assert not ops.nearest_block(x, 2).distances.requires_grad
    assert not ops.match_keys(x, x, torch.arange(7), torch.arange(6)).requires_grad


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
def test_features_that_are_not_finite_are_named_by_their_row(value: float) -> None:
    gallery = torch.zeros(6, 3)
    gallery[4, 1] = value
    with pytest.raises(AutoReIDError, match=r"nearest: `gallery` has .* in row 4; expected finite features"):
        ops.nearest(torch.zeros(2, 3), gallery, 1)
