"""`ops.stencil3x3` on an NVIDIA GPU: parity with the reference, determinism, CUDA graph capture."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from autoreid_fast import ops

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def image(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, device="cuda").to(dtype).to(memory_format=torch.channels_last)


def filters(count: int, channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, channels, 3, 3, device="cuda").to(dtype)


def run(
    x: Tensor, weights: Tensor, dilations: tuple[int, ...], stride: int = 1, relu: bool = True
) -> list[Tensor]:
    """Both pools, the filter outputs, and the gradients of x and weights for fixed output gradients."""
    x, weights = x.detach().requires_grad_(), weights.detach().requires_grad_()
    found = ops.stencil3x3(x, weights, dilations, stride, relu, max_pool=True, avg_pool=True)
    outputs = [output for output in found if output is not None]
    random = torch.Generator("cuda").manual_seed(7)
    grads = [torch.randn(output.shape, generator=random, device="cuda").to(output) for output in outputs]
    return [output.detach() for output in outputs] + list(torch.autograd.grad(outputs, (x, weights), grads))


def test_the_native_kernels_run() -> None:
    backends = {op.op: op.backend for op in ops.status().ops if op.device == "cuda"}
    assert backends["stencil3x3"] == backends["stencil3x3_backward"] == "native"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("shape", "dilations"),
    [
        ((1, 1, 1, 1), (1, 2)),
        ((2, 3, 1, 5), (2,)),
        ((3, 35, 19, 11), (1, 2, 1)),
        ((16, 32, 96, 32), (1, 2) * 4),
        ((4, 256, 12, 4), (1, 2)),
        ((40, 16, 40, 40), (2,)),  # more tiles than slabs
    ],
)
def test_parity(
    shape: tuple[int, int, int, int], dilations: tuple[int, ...], stride: int, dtype: torch.dtype
) -> None:
    x, weights = image(*shape, dtype=dtype), filters(len(dilations), shape[1], dtype)
    with ops.backend("reference"):
        exact = run(x.double(), weights.double(), dilations, stride)
        reference = run(x, weights, dilations, stride)
    for ours, theirs, truth in zip(run(x, weights, dilations, stride), reference, exact, strict=True):
        assert ours.dtype == dtype
        difference, allowed = (ours.double() - truth).abs(), (theirs.double() - truth).abs()
        atol = 4 * torch.finfo(dtype).eps * truth.abs().max().item()
        assert difference.max() <= 2 * allowed.max() + atol
        assert difference.norm() <= 2 * allowed.norm() + torch.finfo(dtype).eps * truth.norm()


@pytest.mark.parametrize("stride", [1, 2])
def test_the_maximum_is_pytorch_s(stride: int) -> None:
    values = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1.0], device="cuda")
    x = values[torch.randint(0, 6, (3, 20, 17, 9), device="cuda")]
    leaf, expected_leaf = (x.clone(memory_format=torch.channels_last).requires_grad_() for _ in range(2))
    found = ops.stencil3x3(leaf, stride=stride, max_pool=True).max_pool
    expected = F.max_pool2d(expected_leaf, 3, stride, 1)
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    grad = torch.randint(-8, 8, found.shape, device="cuda").float()
    found.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(leaf.grad, expected_leaf.grad, rtol=0, atol=0)


def test_strides() -> None:
    x, weights = image(2, 18, 7, 6), filters(2, 18)
    for strided in (x.contiguous(), torch.cat([x, x], 1)[:, 18:], x.repeat_interleave(2, 2)[:, :, ::2]):
        for ours, theirs in zip(run(strided, weights, (1, 2)), run(x, weights, (1, 2)), strict=True):
            assert torch.equal(ours, theirs)


def test_is_deterministic() -> None:
    x, weights = image(16, 32, 96, 32), filters(2, 32)
    first = run(x, weights, (1, 2))
    for _ in range(10):
        again = run(x, weights, (1, 2))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_float64_runs_by_the_reference() -> None:
    x, weights = image(1, 3, 4, 4, dtype=torch.float64), filters(1, 3, torch.float64)
    assert all(tensor.dtype == torch.float64 for tensor in run(x, weights, (1,)))


def test_capture_in_a_cuda_graph() -> None:
    x, weights = image(4, 32, 24, 8).requires_grad_(), filters(2, 32).requires_grad_()

    def loss() -> Tensor:
        found = ops.stencil3x3(x, weights, (1, 2), max_pool=True, avg_pool=True)
        assert found.max_pool is not None and found.avg_pool is not None
        return found.filtered.square().sum() + (found.max_pool * found.avg_pool).sum()

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):  # warm-up, as torch.cuda.graph asks for
        loss().backward()
    torch.cuda.current_stream().wait_stream(stream)
    x.grad = weights.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = loss()
        captured.backward()
    for _ in range(3):
        with torch.no_grad():
            x.normal_()
        graph.replay()
        torch.testing.assert_close(captured, loss())
        expected = torch.autograd.grad(loss(), (x, weights))
        torch.testing.assert_close((x.grad, weights.grad), expected)
