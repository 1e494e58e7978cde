"""`ops.k_reciprocal`: Zhong's re-ranking against a dense NumPy version of its definition."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autoreid_fast import ops
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops.k_reciprocal import reference

SMALL = settings(deadline=None, max_examples=40, derandomize=True)
Array = np.ndarray[Any, Any]


def dense(query: Tensor, gallery: Tensor, k1: int, k2: int, lambda_value: float) -> Array:
    """The definition in float64, with full matrices and Python sets."""
    x = torch.cat([query, gallery]).double().numpy()
    total = len(x)
    squared = ((x[:, None] - x[None]) ** 2).sum(-1)
    ranked = squared.copy()
    np.fill_diagonal(ranked, -1)
    rank = np.argsort(ranked, axis=1, kind="stable")
    greatest = squared.max(1, keepdims=True)
    original = squared / np.where(greatest > 0, greatest, 1)

    def reciprocal(p: int, k: int) -> set[int]:
        return {int(g) for g in rank[p, : k + 1] if p in rank[g, : k + 1]}

    v = np.zeros((total, total))
    for p in range(total):
        near = reciprocal(p, k1)
        expanded = set(near)
        for q in near:
            candidates = reciprocal(q, round(k1 / 2))
            if 3 * len(near & candidates) > 2 * len(candidates):
                expanded |= candidates
        members = sorted(expanded)
        weight = np.exp(-original[p, members])
        v[p, members] = weight / weight.sum()
    v = np.stack([v[rank[p, :k2]].mean(0) for p in range(total)])
    final = np.empty((len(query), len(gallery)))
    for p in range(len(query)):
        overlap = np.minimum(v[p], v[len(query) :]).sum(1)
        jaccard = 1 - overlap / (2 - overlap)
        final[p] = (1 - lambda_value) * jaccard + lambda_value * original[p, len(query) :]
    return final


def people(queries: int, gallery: int, dim: int, images: int = 6) -> tuple[Tensor, Tensor]:
    """Features in clusters, as of people, so that reciprocal sets and their expansions are not empty."""
    total = queries + gallery
    centres = torch.randn(-(-total // images), dim)
    x = centres[torch.randint(0, len(centres), (total,))] + 0.6 * torch.randn(total, dim)
    return x[:queries], x[queries:]


def lattice(total: int, dim: int, seed: int, values: int = 3) -> Tensor:
    """Small integers: duplicates and ties everywhere, and every distance exact in float32."""
    return torch.randint(0, values, (total, dim), generator=torch.Generator().manual_seed(seed)).float()


@pytest.fixture
def kernel(backend: str) -> str:
    """The native kernels only."""
    if backend == "reference":
        pytest.skip("only for the native kernels")
    return backend


def check(query: Tensor, gallery: Tensor, k1: int = 20, k2: int = 6, lambda_value: float = 0.3) -> None:
    distances = ops.k_reciprocal(query, gallery, k1, k2, lambda_value)
    assert distances.dtype == torch.float32
    np.testing.assert_allclose(
        distances.numpy(), dense(query, gallery, k1, k2, lambda_value), rtol=0, atol=2e-6
    )


@pytest.mark.parametrize(("k1", "k2", "lambda_value"), [(20, 6, 0.3), (7, 1, 0.0), (5, 9, 1.0), (30, 3, 0.5)])
def test_people(backend: str, k1: int, k2: int, lambda_value: float) -> None:
    check(*people(23, 150, 37), k1, k2, lambda_value)


@given(st.integers(1, 12), st.integers(1, 60), st.integers(1, 5), st.integers(1, 24), st.integers(1, 30))
@SMALL
def test_ties_and_duplicates(queries: int, gallery: int, dim: int, k1: int, k2: int) -> None:
    x = lattice(queries + gallery, dim, seed=queries * 1000 + gallery * 10 + k1)
    for name in ("native", "reference"):
        with ops.backend(name):  # type: ignore[arg-type]
            check(x[:queries], x[queries:], k1, k2)


def test_ties_on_every_backend(backend: str) -> None:
    x = lattice(300, 4, seed=1)
    check(x[:40], x[40:])


@pytest.mark.parametrize("queries", [1, 3])
def test_all_images_alike(backend: str, queries: int) -> None:
    check(torch.ones(queries, 5), torch.ones(40, 5))


def test_fewer_images_than_k(backend: str) -> None:
    check(*people(1, 1, 3), 20, 6)
    check(*people(2, 5, 3), 20, 30)


def test_half_types_and_strides(backend: str) -> None:
    wide = lattice(90, 64, seed=5)
    query, gallery = wide[:20, ::2], wide[20:, ::2]
    expected = ops.k_reciprocal(query.contiguous(), gallery.contiguous())
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert torch.equal(ops.k_reciprocal(query.to(dtype), gallery.to(dtype)), expected)
    assert torch.equal(ops.k_reciprocal(query, gallery), expected)


def test_a_result_larger_than_the_memory_is_refused() -> None:
    with pytest.raises(AutoReIDError, match="use k_reciprocal_encode and its blocks"):
        ops.k_reciprocal(torch.ones(3, 4), torch.ones(1, 4).expand(10**13, 4))


def test_bad_block() -> None:
    encoding = ops.k_reciprocal_encode(*people(3, 9, 4))
    for start, stop in ((0, 4), (2, 2), (-1, 2)):
        with pytest.raises(AutoReIDError, match="expected 0 <= start < stop <= 3"):
            encoding.block(start, stop)


def test_encoding_is_sparse_and_sums_to_one(backend: str) -> None:
    encoding = ops.k_reciprocal_encode(*people(30, 200, 16), k1=10, k2=4)
    lengths = encoding.offsets.diff()
    assert lengths.min() >= 1
    assert lengths.max() <= 4 * 11 * 7
    owner = torch.arange(30).repeat_interleave(lengths)
    torch.testing.assert_close(torch.zeros(30).index_add_(0, owner, encoding.values), torch.ones(30))
    assert (encoding.columns.diff()[owner.diff() == 0] > 0).all()
    for column in range(230):
        rows = encoding.inverse_rows[encoding.inverse_offsets[column] : encoding.inverse_offsets[column + 1]]
        assert (rows.diff() > 0).all()
    gallery = torch.zeros(200).index_add_(0, encoding.inverse_rows.long(), encoding.inverse_values)
    torch.testing.assert_close(gallery, torch.ones(200))


def test_reference_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery = people(20, 130, 9)
    with ops.backend("reference"):
        whole = ops.k_reciprocal(query, gallery)
        monkeypatch.setattr(reference, "CHUNK", 1 << 13)
        torch.testing.assert_close(ops.k_reciprocal(query, gallery), whole, rtol=0, atol=2e-6)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_copies_come_right_after_the_image_itself() -> None:
    """|a|^2 + |b|^2 - 2ab of a copy is a little above or below 0."""
    features = 10 * torch.randn(60, 33).repeat(2, 1)
    neighbors, farthest = reference.neighbors(features, 2)
    index = torch.arange(120)
    assert torch.equal(neighbors.long(), torch.stack([index, (index + 60) % 120], 1))
    torch.testing.assert_close(farthest, torch.cdist(features, features).square().amax(1))
    assert reference.squared_distances(features, features).min() == 0


def test_threads_and_blocks_change_no_bit(kernel: str, threads: None) -> None:
    query, gallery = people(70, 500, 33)
    whole = ops.k_reciprocal(query, gallery)
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        encoding = ops.k_reciprocal_encode(query, gallery)
        for size in (1, 7, 33, 70):
            parts = [encoding.block(start, min(start + size, 70)) for start in range(0, 70, size)]
            assert torch.equal(torch.cat(parts), whole)


def test_equal_features_are_at_distance_zero(kernel: str) -> None:
    """|a|^2 + |b|^2 - 2ab may be off 0, which division by a maximum near 0 would blow up."""
    x = torch.randn(1, 301).expand(50, 301)
    _, farthest = torch.ops.autoreid_fast.k_reciprocal_neighbors(x, 5)
    assert torch.equal(farthest, torch.zeros(50))
    assert torch.equal(ops.k_reciprocal(x[:3], x[3:], lambda_value=1.0), torch.zeros(3, 47))


@pytest.mark.parametrize(("total", "count"), [(1, 1), (240, 240), (241, 7), (505, 1), (2300, 30)])
def test_neighbors(backend: str, total: int, count: int) -> None:
    """Sizes around the edges of the tiles, with ties; both outputs."""
    x = lattice(total, 3, seed=total, values=9)
    squared = torch.cdist(x.double(), x.double()).square().round()
    run = reference.neighbors if backend == "reference" else torch.ops.autoreid_fast.k_reciprocal_neighbors
    neighbors, farthest = run(x, count)
    assert torch.equal(farthest.double(), squared.amax(1))
    expected = squared.fill_diagonal_(-1).sort(dim=1, stable=True).indices[:, :count]
    assert torch.equal(neighbors.long(), expected)


def test_steps_agree_with_their_references(kernel: str) -> None:
    query, gallery = people(60, 700, 24)
    x = torch.cat([query, gallery])
    native = torch.ops.autoreid_fast
    neighbors, farthest = reference.neighbors(x, 21)
    rows = reference.rows(x, neighbors, farthest, 20)
    expanded = reference.expand(*rows, neighbors, 6)
    inverse = reference.invert(*expanded, 60)
    for actual, expected in (
        (native.k_reciprocal_rows(x, neighbors, farthest, 20), rows),
        (native.k_reciprocal_expand(*rows, neighbors, 6), expanded),
        (native.k_reciprocal_invert(*expanded, 60), inverse),
    ):
        assert torch.equal(actual[0], expected[0])
        assert torch.equal(actual[1], expected[1])
        torch.testing.assert_close(actual[2], expected[2], rtol=1e-5, atol=0)
    offsets, columns, values = expanded
    arguments = (query[5:25], gallery, farthest[5:25], offsets[5:26], columns, values, *inverse, 0.3)
    torch.testing.assert_close(
        native.k_reciprocal_block(*arguments), reference.block(*arguments), rtol=0, atol=2e-6
    )


@pytest.mark.parametrize("k1", range(1, 12))
def test_every_k1_has_the_same_half(k1: int) -> None:
    """k1 / 2 is rounded half to even in the kernels and in the reference."""
    query, gallery = people(10, 120, 6)
    check(query, gallery, k1, 2)


MEMORY = """
import resource, torch
from autoreid_fast import ops
torch.set_num_threads(1)
x = torch.randn(700, 8)[torch.randint(0, 700, (9000,))] + 0.5 * torch.randn(9000, 8)
ops.k_reciprocal(x[:5], x[5:200])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
encoding = ops.k_reciprocal_encode(x[:100], x[100:])
encoding.block(0, 50)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_far_from_n_by_n() -> None:
    """(N, N) float32 would be 309 MiB here; the sparse rows take about 12."""
    pytest.importorskip("autoreid_fast._cpu", reason="no native library: pure-Python install")
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 80 * 1024  # KiB
