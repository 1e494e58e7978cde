"""`ops.separable_conv` on an NVIDIA GPU: parity with the reference, determinism, CUDA graph capture."""

import pytest
import torch
from torch import Tensor

from autoreid_fast import ops

pytest.importorskip("triton", reason="triton is not installed")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
SHAPES: list[tuple[tuple[int, int, int, int], int, tuple[int, ...]]] = [
    ((16, 32, 96, 32), 32, (1, 2) * 4),
    ((16, 16, 96, 32), 16, (1, 2)),
    ((16, 64, 48, 16), 64, (1, 2) * 2),
    ((16, 256, 12, 4), 256, (1, 2)),
    ((4, 512, 12, 4), 512, (2,)),
    ((3, 35, 13, 7), 70, (2, 1, 1)),
    ((2, 5, 1, 3), 1, (1,)),
    ((1, 1, 1, 1), 1, (2, 1)),
    ((2, 8, 9, 9), 8, (1, 2) * 32),  # the dilations fill 64 bits
]
"""(N, C, H, W), D, dilations."""


def inputs(
    shape: tuple[int, int, int, int], out_channels: int, filters: int, dtype: torch.dtype
) -> list[Tensor]:
    channels = shape[1]
    x = torch.randn(shape, device="cuda").to(dtype).contiguous(memory_format=torch.channels_last)
    depthwise = torch.randn(filters, channels, 3, 3, device="cuda") / 3
    pointwise = torch.randn(filters, out_channels, channels, device="cuda") / channels**0.5
    return [x, depthwise.to(dtype), pointwise.to(dtype)]


def run(given: list[Tensor], dilations: tuple[int, ...], stride: int = 1) -> list[Tensor]:
    """z, its statistics, and the gradients of x and both weights for a fixed output gradient."""
    leaves = [each.detach().requires_grad_() for each in given]
    z, statistics = ops.separable_conv(*leaves, dilations, stride, statistics=True)
    assert statistics is not None
    return [z.detach(), statistics, *torch.autograd.grad(z, leaves, cotangent(z))]


def cotangent(z: Tensor) -> Tensor:
    """Small whole numbers, the same in every dtype."""
    random = torch.Generator("cuda").manual_seed(7)
    return torch.randint(-3, 4, z.shape, generator=random, device="cuda").to(z.dtype)


def test_the_native_kernels_run() -> None:
    backends = {op.op: op.backend for op in ops.status().ops if op.device == "cuda"}
    assert backends["separable_conv"] == backends["separable_conv_backward"] == "native"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("shape", "out_channels", "dilations"), SHAPES)
def test_parity(
    shape: tuple[int, int, int, int],
    out_channels: int,
    dilations: tuple[int, ...],
    stride: int,
    dtype: torch.dtype,
) -> None:
    given = inputs(shape, out_channels, len(dilations), dtype)
    with ops.backend("reference"):
        reference = run(given, dilations, stride)
        truth = run([each.double() for each in given], dilations, stride)
    found = run(given, dilations, stride)
    assert found[0].stride() == reference[0].stride()
    for ours, theirs, exact in zip(found, reference, truth, strict=True):
        error, allowed = (ours.double() - exact).abs().max(), (theirs.double() - exact).abs().max()
        assert error <= 2 * allowed + 2e-6 * exact.abs().max()
        assert ours.dtype == theirs.dtype


def test_a_large_mean_does_not_drown_the_variance() -> None:
    """z = 1000 + noise: a difference of mean squares would keep no digit of its variance."""
    x = torch.rand(4, 16, 48, 16, device="cuda") + 1000
    depthwise = torch.zeros(1, 16, 3, 3, device="cuda")
    depthwise[:, :, 1, 1] = 1
    pointwise = torch.eye(16, device="cuda")[None]
    z, statistics = ops.separable_conv(x, depthwise, pointwise, (1,), statistics=True)
    assert statistics is not None
    expected = z[0].double().var((0, 2, 3), correction=0)
    torch.testing.assert_close(statistics[0, 1].double(), expected, rtol=1e-3, atol=0)


def test_gradients_that_are_not_needed_change_nothing() -> None:
    given, dilations = inputs((4, 48, 12, 10), 48, 2, torch.float32), (1, 2)
    everything = run(given, dilations)[2:]
    for number in range(3):
        leaves = [each.detach().requires_grad_(place == number) for place, each in enumerate(given)]
        z = ops.separable_conv(*leaves, dilations).z
        [found] = torch.autograd.grad(z, leaves[number], cotangent(z))
        torch.testing.assert_close(found, everything[number])


def test_slices_and_other_strides() -> None:
    given = inputs((2, 20, 9, 7), 12, 2, torch.float32)
    wide = torch.randn(4, 40, 9, 14, device="cuda")
    wide[::2, ::2, :, ::2] = given[0]
    strided = [wide[::2, ::2, :, ::2], given[1].flip(0).flip(0), given[2].mT.contiguous().mT]
    for ours, expected in zip(run(strided, (2, 1), 2), run(given, (2, 1), 2), strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("channels", [32, 128])
def test_is_deterministic(channels: int) -> None:
    given = inputs((8, channels, 48, 16), channels, 4, torch.float32)
    first = run(given, (1, 2) * 2)
    for _ in range(10):
        assert all(torch.equal(a, b) for a, b in zip(first, run(given, (1, 2) * 2), strict=True))


def test_float64_runs_by_the_reference() -> None:
    assert run(inputs((2, 3, 4, 5), 3, 1, torch.float64), (1,))[0].dtype == torch.float64


def test_capture_in_a_cuda_graph() -> None:
    given = [each.requires_grad_() for each in inputs((4, 32, 24, 8), 32, 2, torch.float32)]
    grad = torch.randn(2, 4, 32, 24, 8, device="cuda")

    def step() -> tuple[Tensor, ...]:
        z, statistics = ops.separable_conv(*given, (1, 2), statistics=True)
        assert statistics is not None
        return (z, statistics, *torch.autograd.grad(z, given, grad))

    step()  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for _ in range(3):
        with torch.no_grad():
            for each in given:
                each.normal_()
        graph.replay()
        for ours, theirs in zip(captured, step(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
