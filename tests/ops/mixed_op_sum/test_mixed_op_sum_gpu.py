"""`ops.mixed_op_sum` on an NVIDIA GPU: parity with the reference, determinism, CUDA graph capture."""

import pytest
import torch
from torch import Tensor

from autoreid_fast import ops

pytest.importorskip("triton", reason="triton is not installed")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def run(candidates: list[Tensor], weights: Tensor, grad: Tensor) -> list[Tensor]:
    """y, the gradient of each candidate, the gradient of the weights; every sixth candidate is plain."""
    leaves = [each.detach().requires_grad_() for each in (*candidates, weights)]
    y = ops.mixed_op_sum(leaves[:-1], leaves[-1], [k % 6 != 5 for k in range(len(candidates))])
    return [y.detach(), *torch.autograd.grad(y, leaves, grad.to(y.dtype))]


def node(
    shape: tuple[int, ...], count: int, dtype: torch.dtype, layout: torch.memory_format
) -> tuple[list[Tensor], Tensor, Tensor]:
    candidates = [
        (torch.randn(shape, device="cuda") * (1 + k % 3) + k % 5).to(dtype).contiguous(memory_format=layout)
        for k in range(count)
    ]
    return candidates, torch.rand(count, device="cuda"), torch.randn(shape, device="cuda").to(dtype)


def test_the_native_kernels_run() -> None:
    backends = {op.op: op.backend for op in ops.status().ops if op.device == "cuda"}
    assert backends["mixed_op_sum"] == backends["mixed_op_sum_backward"] == "native"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((16, 32, 96, 32), 30),
        ((16, 256, 12, 4), 12),
        ((3, 33, 13, 7), 5),
        ((2, 1, 1, 1), 1),
        ((64, 70, 1, 1), 35),
    ],
)
def test_parity(shape: tuple[int, ...], count: int, dtype: torch.dtype, layout: str) -> None:
    candidates, weights, grad = node(shape, count, dtype, LAYOUTS[layout])
    with ops.backend("reference"):
        truth = run([z.double() for z in candidates], weights.double(), grad.double())
        reference = run(candidates, weights, grad)
    found = run(candidates, weights, grad)
    largest = max(exact.abs().max() for exact in truth)  # where a gradient is 0 but for rounding
    for ours, theirs, exact in zip(found, reference, truth, strict=True):
        assert ours.dtype == theirs.dtype
        error, allowed = (ours.double() - exact).abs().max(), (theirs.double() - exact).abs().max()
        assert error <= 2 * allowed + 2e-6 * exact.abs().max() + 1e-7 * largest
    assert found[0].stride() == candidates[0].stride()


def test_unaligned_slices_and_mixed_layouts() -> None:
    wide = torch.randn(4, 9, 12, 11, device="cuda")
    candidates = [
        wide[::2, 1:6, 3:9, 1:5],
        torch.randn(2, 5, 6, 4, device="cuda").contiguous(memory_format=torch.channels_last),
        torch.randn(2 * 5 * 6 * 4 + 1, device="cuda")[1:].view(2, 5, 6, 4),
    ]
    weights, grad = torch.rand(3, device="cuda"), torch.ones((), device="cuda").expand(2, 5, 6, 4)
    expected = run(
        [z.clone(memory_format=torch.contiguous_format) for z in candidates], weights, grad.clone()
    )
    for ours, theirs in zip(run(candidates, weights, grad), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_is_deterministic(layout: str) -> None:
    arguments = node((16, 32, 96, 32), 12, torch.float32, LAYOUTS[layout])
    first = run(*arguments)
    for _ in range(10):
        assert all(torch.equal(a, b) for a, b in zip(first, run(*arguments), strict=True))


def test_float64_runs_by_the_reference() -> None:
    candidates, weights, grad = node((2, 3, 4, 5), 2, torch.float64, torch.contiguous_format)
    assert run(candidates, weights.double(), grad)[0].dtype == torch.float64


def test_capture_in_a_cuda_graph() -> None:
    candidates, weights, grad = node((4, 8, 24, 8), 6, torch.float32, torch.contiguous_format)
    leaves = [z.requires_grad_() for z in candidates]
    flags = [True] * 5 + [False]
    running = torch.zeros(6, 8, device="cuda"), torch.ones(6, 8, device="cuda")

    def step() -> tuple[Tensor, ...]:
        y = ops.mixed_op_sum(leaves, weights, flags, *running)
        return (y, *torch.autograd.grad(y, leaves, grad))

    step()  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for _ in range(3):
        with torch.no_grad():
            for z in leaves:
                z.normal_()
        graph.replay()
        for ours, theirs in zip(captured, step(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
