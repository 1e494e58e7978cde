"""`ops.part_attention` on an NVIDIA GPU: parity with the reference, determinism, CUDA graph capture."""

from typing import Any

import pytest
import torch
from torch import Tensor

from autoreid_fast import ops
from autoreid_fast.ops.part_attention import PARTS

pytest.importorskip("triton", reason="triton is not installed")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


def problem(shape: tuple[int, ...], edges: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """x in this dtype, channels last, and float32 parameters of their usual sizes."""
    channels, hidden = shape[1], max(1, shape[1] // 3)

    def weight(*sizes: int) -> Tensor:
        return torch.randn(sizes, device="cuda") * sizes[-1] ** -0.5

    return {
        "x": torch.randn(shape, device="cuda").to(dtype).contiguous(memory_format=torch.channels_last),
        "project_weight": weight(edges, PARTS, hidden, channels),
        "project_bias": weight(edges, PARTS, hidden),
        "key_weight": weight(edges, hidden, hidden),
        "key_bias": weight(edges, hidden),
        "query_weight": weight(edges, hidden, hidden),
        "query_bias": weight(edges, hidden),
        "fuse_weight": weight(edges, channels, hidden),
    }


def run(named: dict[str, Tensor], grad: Tensor, **options: Any) -> list[Tensor]:
    leaves = {name: each.detach().requires_grad_() for name, each in named.items()}
    bias = ops.part_attention(**leaves, **options)
    return [bias.detach(), *torch.autograd.grad(bias, list(leaves.values()), grad.to(bias.dtype))]


def test_the_native_kernels_run() -> None:
    backends = {op.op: op.backend for op in ops.status().ops if op.device == "cuda"}
    assert backends["part_attention"] == backends["part_attention_backward"] == "native"


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "edges"),
    [((16, 32, 96, 32), 4), ((16, 256, 12, 4), 4), ((19, 33, 11, 7), 2), ((2, 3, 4, 1), 1)],
)
def test_parity(shape: tuple[int, ...], edges: int, dtype: torch.dtype, relu: bool) -> None:
    named = problem(shape, edges, dtype)
    grad = torch.randn(edges, shape[0], PARTS, shape[1], device="cuda").to(dtype)
    found = run(named, grad, relu=relu)
    with ops.backend("reference"):
        reference = run(named, grad, relu=relu)
        truth = run({name: each.double() for name, each in named.items()}, grad, relu=relu)
    largest = max(each.abs().max() for each in truth)
    for ours, theirs, exact in zip(found, reference, truth, strict=True):
        assert ours.dtype == theirs.dtype
        error, allowed = (ours.double() - exact).abs().max(), (theirs.double() - exact).abs().max()
        assert error <= 2 * allowed + 2e-6 * exact.abs().max() + 1e-6 * largest


def test_is_deterministic() -> None:
    named = problem((16, 64, 48, 16), 4, torch.float32)
    grad = torch.randn(4, 16, PARTS, 64, device="cuda")
    first = run(named, grad)
    for _ in range(10):
        assert all(torch.equal(a, b) for a, b in zip(first, run(named, grad), strict=True))


def test_capture_in_a_cuda_graph() -> None:
    named = {name: each.requires_grad_() for name, each in problem((4, 9, 8, 4), 2, torch.float32).items()}
    running = {
        "running_mean": torch.zeros(2, PARTS, 3, device="cuda"),
        "running_var": torch.ones(2, PARTS, 3, device="cuda"),
    }
    grad = torch.randn(2, 4, PARTS, 9, device="cuda")

    def step() -> tuple[Tensor, ...]:
        bias = ops.part_attention(**named, **running)
        return (bias, *torch.autograd.grad(bias, list(named.values()), grad))

    step()  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for _ in range(3):
        with torch.no_grad():
            named["x"].normal_()
        graph.replay()
        for ours, theirs in zip(captured, step(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
