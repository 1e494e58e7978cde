"""`ops.k_reciprocal` on an NVIDIA GPU: parity with the CPU, determinism, and beyond the kernels' limits."""

import pytest
import torch
from torch import Tensor

from autoreid_fast import ops

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


def lattice(total: int, dim: int, values: int = 9) -> Tensor:
    """Small integers: many ties, and distances that are exact on any device."""
    return torch.randint(0, values, (total, dim)).float()


def people(total: int, dim: int, images: int = 12) -> Tensor:
    centres = torch.randn(-(-total // images), dim)
    return centres[torch.randint(0, len(centres), (total,))] + 0.6 * torch.randn(total, dim)


def test_native_kernels_run() -> None:
    backends = {op.op: op.backend for op in ops.status().ops if op.device == "cuda"}
    for step in ("rows", "expand", "block"):
        assert backends[f"k_reciprocal_{step}"] == "native"


@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (1, 1), (61, 2), (80, 3), (20, 40)])
@pytest.mark.parametrize(("queries", "gallery", "dim"), [(1, 1, 3), (40, 500, 4), (300, 3000, 12)])
def test_parity_under_ties(queries: int, gallery: int, dim: int, k1: int, k2: int) -> None:
    x = lattice(queries + gallery, dim)
    expected = ops.k_reciprocal(x[:queries], x[queries:], k1, k2)
    x = x.cuda()
    actual = ops.k_reciprocal(x[:queries], x[queries:], k1, k2)
    torch.testing.assert_close(actual.cpu(), expected, rtol=0, atol=2e-6)


def test_parity_on_people() -> None:
    """Devices may order two neighbours differently where their distances differ by a rounding only."""
    x = people(4000, 256)
    expected = ops.k_reciprocal(x[:500], x[500:])
    x = x.cuda()
    actual = ops.k_reciprocal(x[:500], x[500:]).cpu()
    assert ((actual - expected).abs() < 1e-5).float().mean() > 0.999


def test_steps_agree_with_the_cpu() -> None:
    x = people(900, 40).cuda()
    native = torch.ops.autoreid_fast
    neighbors, farthest = native.k_reciprocal_neighbors(x, 21)
    rows = native.k_reciprocal_rows(x, neighbors, farthest, 20)
    expanded = native.k_reciprocal_expand(*rows, neighbors, 6)
    cpu = [t.cpu() for t in rows]
    expected = native.k_reciprocal_rows(x.cpu(), neighbors.cpu(), farthest.cpu(), 20)
    expected_sum = native.k_reciprocal_expand(*cpu, neighbors.cpu(), 6)
    for ours, theirs in zip((*rows, *expanded), (*expected, *expected_sum), strict=True):
        if ours.dtype == torch.float32:
            torch.testing.assert_close(ours.cpu(), theirs, rtol=1e-5, atol=0)
        else:
            assert torch.equal(ours.cpu(), theirs)


def test_is_deterministic_and_blocks_agree() -> None:
    x = people(2000, 64).cuda()
    whole = ops.k_reciprocal(x[:200], x[200:])
    for _ in range(5):
        assert torch.equal(ops.k_reciprocal(x[:200], x[200:]), whole)
    encoding = ops.k_reciprocal_encode(x[:200], x[200:])
    parts = torch.cat([encoding.block(start, min(start + 64, 200)) for start in range(0, 200, 64)])
    torch.testing.assert_close(parts, whole, rtol=0, atol=2e-6)
