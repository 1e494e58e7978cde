"""`ops.separable_conv`: values, statistics and gradients, by every implementation on this machine."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from autoreid_fast import ops

NAMES = ("z", "statistics", "grad_x", "grad_depthwise", "grad_pointwise")


def arguments(
    shape: tuple[int, int, int, int], filters: int, out_channels: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """x channels last, depthwise and pointwise weights."""
    x = torch.randn(shape).to(dtype).to(memory_format=torch.channels_last)
    channels = shape[1]
    return (
        x,
        torch.randn(filters, channels, 3, 3).to(dtype),
        torch.randn(filters, out_channels, channels).to(dtype),
    )


def run(
    inputs: Sequence[Tensor], dilations: Sequence[int], stride: int, grad: Tensor | None = None
) -> list[Tensor]:
    """z, its statistics, and the gradients of all inputs for a fixed gradient of z."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    z, statistics = ops.separable_conv(*leaves, dilations, stride, statistics=True)
    assert statistics is not None and not statistics.requires_grad
    if grad is None:
        grad = torch.randn(z.shape, generator=torch.Generator().manual_seed(7))
    return [z.detach(), statistics, *torch.autograd.grad(z, leaves, grad.to(z))]


def layers(inputs: Sequence[Tensor], dilations: Sequence[int], stride: int) -> list[Tensor]:
    """The same outputs from torch's own layers and autograd, filter by filter."""
    x, depthwise, pointwise = leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    z = torch.stack(
        [
            F.conv2d(
                F.conv2d(F.relu(x), first[:, None], None, stride, d, d, x.shape[1]), second[:, :, None, None]
            )
            for first, second, d in zip(depthwise, pointwise, dilations, strict=True)
        ]
    )
    flat = z.detach().transpose(1, 2).flatten(2)
    statistics = torch.stack([flat.mean(2), flat.var(2, correction=0)], 1)
    grad = torch.randn(z.shape, generator=torch.Generator().manual_seed(7))
    return [z.detach(), statistics, *torch.autograd.grad(z, leaves, grad.to(z))]


def assert_parity(inputs: Sequence[Tensor], dilations: Sequence[int], stride: int) -> None:
    """Error against float64: at most twice the error of the reference in this dtype."""
    with ops.backend("reference"):
        exact = run([tensor.double() for tensor in inputs], dilations, stride)
        reference = run(inputs, dilations, stride)
    dtype = inputs[0].dtype
    for name, ours, theirs, truth in zip(
        NAMES, run(inputs, dilations, stride), reference, exact, strict=True
    ):
        assert ours.dtype == (theirs.dtype if name == "statistics" else dtype), name
        assert ours.shape == truth.shape, name
        difference, allowed = (ours.double() - truth).abs(), (theirs.double() - truth).abs()
        # The last bit of a half type may differ: one rounding of the largest element.
        rounding = 4 * torch.finfo(dtype).eps
        assert difference.max() <= 2 * allowed.max() + rounding * truth.abs().max(), name
        assert difference.norm() <= 2 * allowed.norm() + rounding * truth.norm(), name
        assert F.cosine_similarity(ours.double().flatten(), truth.flatten(), dim=0) > 0.9999, name


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 1, 4), (1, 17, 2, 1), (3, 20, 7, 5), (2, 33, 9, 6)])
def test_equals_torch_layers(backend: str, shape: tuple[int, int, int, int], stride: int) -> None:
    inputs = arguments(shape, 3, 19, torch.float64)
    for ours, theirs in zip(run(inputs, (1, 2, 2), stride), layers(inputs, (1, 2, 2), stride), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


def test_parity_above_one_unit(backend: str) -> None:
    """More rows than a unit, a row longer than a unit, and tiles of every height in the products."""
    for stride in (1, 2):
        assert_parity(arguments((1, 16, 45, 31), 2, 16), (1, 2), stride)
        assert_parity(arguments((1, 17, 2, 500), 1, 23), (2,), stride)


def test_parity_above_one_chunk() -> None:
    """More images than a chunk of the backward pass, a smaller last chunk, and slabs of several units."""
    assert_parity(arguments((7, 32, 96, 32), 3, 8), (1, 2, 1), 1)
    assert_parity(arguments((5, 128, 12, 9), 2, 128), (2, 2), 1)


def test_statistics_with_a_large_mean(backend: str) -> None:
    """The variance is accurate under a mean a thousand times larger, and 0 for constant z."""
    x, depthwise, _ = arguments((4, 16, 24, 24), 2, 16)
    z, statistics = ops.separable_conv(
        1e3 + x,
        torch.zeros_like(depthwise).index_fill_(2, torch.tensor(1), 1 / 3),
        torch.eye(16).repeat(2, 1, 1),
        (1, 2),
        statistics=True,
    )
    assert statistics is not None
    flat = z.double().transpose(1, 2).flatten(2)
    torch.testing.assert_close(statistics[:, 0].double(), flat.mean(2), rtol=1e-6, atol=0)
    torch.testing.assert_close(statistics[:, 1].double(), flat.var(2, correction=0), rtol=1e-4, atol=0)
    flat_x = torch.full_like(x, 1e4)
    depthwise = torch.zeros_like(depthwise)
    depthwise[:, :, 1, 1] = 1
    _, statistics = ops.separable_conv(
        flat_x, depthwise, torch.eye(16).repeat(2, 1, 1), (1, 2), statistics=True
    )
    assert statistics is not None
    assert torch.equal(statistics[:, 0], torch.full((2, 16), 1e4))
    assert torch.equal(statistics[:, 1], torch.zeros(2, 16))


def test_nan_stays_nan(backend: str) -> None:
    inputs = arguments((1, 16, 4, 4), 1, 3)
    inputs[0][0, 3, 1, 2] = torch.nan
    assert torch.equal(run(inputs, (1,), 1)[0].isnan(), layers(inputs, (1,), 1)[0].isnan())


STRIDED: dict[str, Callable[[Tensor], Tensor]] = {
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "contiguous": lambda x: x.contiguous(),
    "channels of a larger tensor": lambda x: torch.cat([x + 1, x], 1)[:, x.shape[1] :],
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "every other row": lambda x: x.repeat_interleave(2, 2)[:, :, ::2],
    "expanded": lambda x: x[:1].expand(len(x), -1, -1, -1),
}


@pytest.mark.parametrize("layout", STRIDED)
def test_strides(backend: str, layout: str) -> None:
    x, depthwise, pointwise = arguments((2, 18, 7, 6), 2, 20)
    strided = STRIDED[layout](x)
    transposed = (strided, depthwise.mT.contiguous().mT, pointwise.mT.contiguous().mT)
    found = run(transposed, (1, 2), 1)
    expected = run((strided.contiguous(memory_format=torch.channels_last), depthwise, pointwise), (1, 2), 1)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        assert backend == "reference" or torch.equal(ours, theirs)
    with torch.no_grad():
        z = ops.separable_conv(strided, depthwise, pointwise, (1, 2)).z
    assert z.permute(0, 1, 3, 4, 2).is_contiguous()
    assert backend == "reference" or found[2].is_contiguous(memory_format=torch.channels_last)


def test_gradients_of_any_stride(backend: str) -> None:
    inputs = arguments((2, 16, 6, 5), 2, 9)
    grad = torch.randn(2, 2, 9, 6, 5)
    expected = run(inputs, (1, 2), 1, grad.movedim(2, -1).contiguous().movedim(-1, 2))
    for strided in (grad, grad.mT.contiguous().mT):
        for ours, theirs in zip(run(inputs, (1, 2), 1, strided), expected, strict=True):
            assert torch.equal(ours, theirs)


def test_only_the_gradients_that_are_needed(backend: str) -> None:
    """A gradient is the same whether or not the others are computed."""
    inputs = arguments((2, 17, 6, 5), 2, 10)
    grad = torch.randn(2, 2, 10, 6, 5)
    expected = run(inputs, (1, 2), 1, grad)[2:]
    for k in range(3):
        leaves = [tensor.detach().requires_grad_(i == k) for i, tensor in enumerate(inputs)]
        ops.separable_conv(*leaves, (1, 2)).z.backward(grad)
        assert [leaf.grad is not None for leaf in leaves] == [i == k for i in range(3)]
        assert torch.equal(leaves[k].grad, expected[k])


def test_without_statistics(backend: str) -> None:
    inputs = arguments((2, 16, 6, 5), 2, 16)
    found = ops.separable_conv(*inputs, (1, 2))
    assert found.statistics is None
    assert torch.equal(found.z, run(inputs, (1, 2), 1)[0])


@pytest.mark.parametrize("shape", [(5, 32, 24, 8), (9, 48, 96, 32)])
def test_is_deterministic_for_any_number_of_threads(shape: tuple[int, int, int, int]) -> None:
    inputs = arguments(shape, 3, 24)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(run(inputs, (1, 2, 1), 1))
    finally:
        torch.set_num_threads(before)
    for found in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found, results[0], strict=True))


@pytest.mark.parametrize("stride", [1, 2])
def test_gradcheck(backend: str, stride: int) -> None:
    # Distinct values, none near 0: no kink.
    x = torch.randperm(2 * 3 * 5 * 4).double().view(2, 3, 5, 4) / 7 - 8.1
    _, depthwise, pointwise = arguments((2, 3, 5, 4), 2, 2, torch.float64)
    leaves = [tensor.requires_grad_() for tensor in (x, depthwise, pointwise)]
    assert torch.autograd.gradcheck(lambda *each: ops.separable_conv(*each, (1, 2), stride).z, leaves)


def test_the_reference_is_differentiable_twice() -> None:
    leaves = [tensor.requires_grad_() for tensor in arguments((1, 2, 4, 3), 1, 2, torch.float64)]
    with ops.backend("reference"):
        assert torch.autograd.gradgradcheck(lambda *each: ops.separable_conv(*each, (1,)).z, leaves)


X, A, B = arguments((1, 4, 5, 5), 1, 2)
