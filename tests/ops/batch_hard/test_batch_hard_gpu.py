"""`ops.batch_hard` on an NVIDIA GPU: parity with the reference, determinism, CUDA graph capture."""

import pytest
import torch
from torch import Tensor

from autoreid_fast import ops

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def run(features: Tensor, labels: Tensor, form: ops.Form = "hinge") -> tuple[ops.BatchHard, Tensor]:
    leaf = features.detach().requires_grad_()
    found = ops.batch_hard(leaf, labels, 0.3, form)
    return found, torch.autograd.grad(found.loss, leaf)[0]


def test_the_native_kernels_run() -> None:
    backends = {op.op: op.backend for op in ops.status().ops if op.device == "cuda"}
    assert backends["batch_hard"] == backends["batch_hard_backward"] == "native"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", ["hinge", "printed"])
@pytest.mark.parametrize(("count", "dim"), [(1, 1), (7, 5), (64, 2048), (130, 513), (300, 40), (4096, 64)])
def test_parity(count: int, dim: int, dtype: torch.dtype, form: ops.Form) -> None:
    x = torch.randn(count, dim, device="cuda").to(dtype)
    labels = torch.randint(0, max(1, count // 4), (count,), device="cuda")
    with ops.backend("reference"):
        (exact, exact_grad), (reference, reference_grad) = run(x.double(), labels, form), run(x, labels, form)
    found, grad = run(x, labels, form)
    for ours, theirs, truth in zip(found, reference, exact, strict=True):
        if ours.dtype == torch.int64:
            # float32 may order two pairs the other way only where their distances agree to its precision
            assert (ours == truth).float().mean() > 0.999
            continue
        atol = 1e-6 * truth.detach().abs().max().item()
        assert (ours.double() - truth).abs().max() <= 2 * (theirs.double() - truth).abs().max() + atol
    error, reference_error = (
        (grad.double() - exact_grad).norm(),
        (reference_grad.double() - exact_grad).norm(),
    )
    assert error <= 2 * reference_error + 1e-6 * exact_grad.norm()


@pytest.mark.parametrize("dtype", DTYPES)
def test_strides_and_alignment(dtype: torch.dtype) -> None:
    wide, labels = torch.randn(24, 90, device="cuda").to(dtype), torch.arange(24, device="cuda") // 4
    for x in (wide[:, 1:78], wide[::2, :80], wide.t()[:24, :24]):
        found, grad = run(x, labels[: len(x)])
        expected, expected_grad = run(x.contiguous(), labels[: len(x)])
        for ours, theirs in zip((*found, grad), (*expected, expected_grad), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_ties_go_to_the_lower_index() -> None:
    x, labels = torch.randint(0, 2, (200, 3)).float(), torch.randint(0, 5, (200,))
    found, expected = ops.batch_hard(x.cuda(), labels.cuda()), ops.batch_hard(x, labels)
    assert torch.equal(found.positive.cpu(), expected.positive)
    assert torch.equal(found.negative.cpu(), expected.negative)


def test_is_deterministic() -> None:
    x, labels = torch.randn(96, 2048, device="cuda"), torch.arange(96, device="cuda") // 4
    first, first_grad = run(x, labels)
    for _ in range(20):
        again, grad = run(x, labels)
        assert all(torch.equal(a, b) for a, b in zip((*first, first_grad), (*again, grad), strict=True))


def test_float64_runs_by_the_reference() -> None:
    x = torch.randn(8, 5, device="cuda", dtype=torch.float64)
    found, _ = run(x, torch.arange(8, device="cuda") // 4)
    assert found.loss.dtype == torch.float64


def test_capture_in_a_cuda_graph() -> None:
    x = torch.randn(64, 256, device="cuda", requires_grad=True)
    labels = torch.arange(64, device="cuda") // 4
    ops.batch_hard(x, labels).loss.backward()
    x.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = ops.batch_hard(x, labels).loss
        loss.backward()
    for _ in range(3):
        with torch.no_grad():
            x.normal_()
        graph.replay()
        assert x.grad is not None
        expected, grad = run(x, labels)
        torch.testing.assert_close(loss, expected.loss)
        torch.testing.assert_close(x.grad, grad)
