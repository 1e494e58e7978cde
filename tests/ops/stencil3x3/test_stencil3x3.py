"""`ops.stencil3x3`: values and gradients, by every implementation on this machine."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from autoreid_fast import ops

NAMES = ("max_pool", "avg_pool", "filtered", "grad_x", "grad_weights")


def image(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape).to(dtype).to(memory_format=torch.channels_last)


def filters(count: int, channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, channels, 3, 3).to(dtype)


def run(
    x: Tensor,
    weights: Tensor,
    dilations: tuple[int, ...],
    stride: int = 1,
    relu: bool = True,
    grads: tuple[Tensor, ...] | None = None,
) -> list[Tensor]:
    """Both pools, the filter outputs, and the gradients of x and weights for fixed output gradients."""
    x, weights = x.detach().requires_grad_(), weights.detach().requires_grad_()
    found = ops.stencil3x3(x, weights, dilations, stride, relu, max_pool=True, avg_pool=True)
    outputs = [output for output in found if output is not None and output.numel() > 0]
    assert len(outputs) == 2 + (len(dilations) > 0)
    if grads is None:
        random = torch.Generator().manual_seed(7)
        grads = tuple(torch.randn(output.shape, generator=random) for output in outputs)
    cotangents = [grad.to(output) for grad, output in zip(grads, outputs, strict=False)]
    leaves = (x, weights) if dilations else (x,)
    return [output.detach() for output in outputs] + list(torch.autograd.grad(outputs, leaves, cotangents))


def by_definition(x: Tensor, weight: Tensor, dilation: int, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Max pool, average pool and one filter of ReLU(x), window by window."""
    n, c, h, w = x.shape
    size = (n, c, (h + stride - 1) // stride, (w + stride - 1) // stride)
    largest, mean, filtered = torch.empty(size), torch.empty(size), torch.zeros(size)
    for i, j in product(range(size[2]), range(size[3])):
        y, z = i * stride, j * stride
        window = x[:, :, max(y - 1, 0) : y + 2, max(z - 1, 0) : z + 2].flatten(2)
        largest[:, :, i, j], mean[:, :, i, j] = window.max(2).values, window.mean(2)
        for u, v in product(range(3), range(3)):
            row, column = y + dilation * (u - 1), z + dilation * (v - 1)
            if 0 <= row < h and 0 <= column < w:
                filtered[:, :, i, j] += weight[:, u, v] * x[:, :, row, column].clamp(min=0)
    return largest, mean, filtered


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 1, 4), (1, 17, 2, 1), (2, 4, 5, 6)])
def test_equals_the_definition(backend: str, shape: tuple[int, int, int, int], stride: int) -> None:
    x, weights = image(*shape), filters(2, shape[1])
    found = ops.stencil3x3(x, weights, (1, 2), stride, max_pool=True, avg_pool=True)
    for f, dilation in enumerate((1, 2)):
        largest, mean, filtered = by_definition(x, weights[f], dilation, stride)
        torch.testing.assert_close(found.filtered[f], filtered)
        torch.testing.assert_close(found.max_pool, largest)
        torch.testing.assert_close(found.avg_pool, mean)


def test_equals_torch_with_autograd(backend: str) -> None:
    """Values and gradients of torch's own layers; the reference's backward op is checked as well."""
    for stride, relu in product((1, 2), (True, False)):
        x, weights = image(2, 18, 9, 7, dtype=torch.float64), filters(3, 18, torch.float64)
        found = run(x, weights, (1, 2, 2), stride, relu)
        x, weights = x.detach().requires_grad_(), weights.requires_grad_()
        source = F.relu(x) if relu else x
        expected = [
            F.max_pool2d(x, 3, stride, 1),
            F.avg_pool2d(x, 3, stride, 1, count_include_pad=False),
            torch.stack(
                [
                    F.conv2d(source, w[:, None], None, stride, d, d, 18)
                    for w, d in zip(weights, (1, 2, 2), strict=True)
                ]
            ),
        ]
        random = torch.Generator().manual_seed(7)
        grads = [torch.randn(output.shape, generator=random).double() for output in expected]
        expected += torch.autograd.grad(expected, (x, weights), grads)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("values", ["ties", "special", "zeros", "all -inf"])
def test_the_maximum_is_that_of_pytorch(backend: str, values: str, stride: int) -> None:
    """Ties, NaN, infinities and signed zeros: same value, and the gradient goes to the same pixel."""
    x = torch.randint(0, 2, (2, 17, 9, 10)).float()
    if values == "special":
        chosen = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0])
        x = chosen[torch.randint(0, 4, x.shape)]
    if values == "zeros":
        x = torch.where(x > 0, 0.0, -0.0)
    if values == "all -inf":
        x = torch.full_like(x, -torch.inf)
    leaf, expected_leaf = (x.clone(memory_format=torch.channels_last).requires_grad_() for _ in range(2))
    found = ops.stencil3x3(leaf, stride=stride, max_pool=True).max_pool
    expected = F.max_pool2d(expected_leaf, 3, stride, 1)
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    grad = torch.randint(-8, 8, found.shape).float()  # sums of these are exact in any order
    found.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(leaf.grad, expected_leaf.grad, rtol=0, atol=0)


@pytest.mark.parametrize("relu", [True, False])
def test_nan_passes_the_filters(backend: str, relu: bool) -> None:
    x = image(1, 16, 4, 4)
    x[0, 3, 1, 2] = torch.nan
    found = run(x, filters(1, 16), (1,), relu=relu)
    with ops.backend("reference"):
        expected = run(x, filters(1, 16), (1,), relu=relu)[2]
    assert torch.equal(found[2].isnan(), expected.isnan())
    assert found[3][0, 3, 1, 2].isfinite()  # its gradient depends on the weights only


def test_parity_above_one_tile(backend: str) -> None:
    """More rows than a tile, and more channels than a vector."""
    for stride in (1, 2):
        assert_parity(image(1, 16, 61, 70), filters(2, 16), (1, 2), stride)
        assert_parity(image(2, 17, 2, 700), filters(1, 17), (2,), stride)


def assert_parity(x: Tensor, weights: Tensor, dilations: tuple[int, ...], stride: int) -> None:
    with ops.backend("reference"):
        exact = run(x.double(), weights.double(), dilations, stride)
        reference = run(x, weights, dilations, stride)
    found = run(x, weights, dilations, stride)
    names = NAMES if dilations else [name for name in NAMES if name not in ("filtered", "grad_weights")]
    for name, ours, theirs, truth in zip(names, found, reference, exact, strict=True):
        assert ours.dtype == x.dtype, name
        assert ours.shape == truth.shape, name
        difference, allowed = (ours.double() - truth).abs(), (theirs.double() - truth).abs()
        # The last bit of a half type may differ: one rounding of the largest element.
        atol = 4 * torch.finfo(x.dtype).eps * truth.abs().max().item()
        assert difference.max() <= 2 * allowed.max() + atol, name
        assert difference.norm() <= 2 * allowed.norm() + 4 * torch.finfo(x.dtype).eps * truth.norm(), name
        cosine = F.cosine_similarity(ours.double().flatten(), truth.flatten(), dim=0)
        assert cosine > 0.9999, name


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
    x, weights = image(2, 18, 7, 6), filters(2, 18)
    strided = STRIDED[layout](x)
    found = run(strided, weights.transpose(2, 3).contiguous().transpose(2, 3), (1, 2))
    expected = run(strided.contiguous(memory_format=torch.channels_last), weights, (1, 2))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        assert backend == "reference" or torch.equal(ours, theirs)
    for output in (*found[:2], found[2][0]):
        assert output.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        filtered = ops.stencil3x3(strided, weights, (1, 2)).filtered
    assert filtered.permute(0, 1, 3, 4, 2).is_contiguous()


def test_gradients_of_any_stride(backend: str) -> None:
    x, weights = image(2, 16, 6, 5), filters(2, 16)
    grads = (torch.randn(2, 16, 6, 5), torch.randn(2, 16, 5, 6).transpose(2, 3), torch.randn(2, 2, 16, 6, 5))
    last = tuple(grad.movedim(-3, -1).contiguous().movedim(-1, -3) for grad in grads)
    for ours, theirs in zip(
        run(x, weights, (1, 2), grads=grads), run(x, weights, (1, 2), grads=last), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_only_requested_outputs(backend: str) -> None:
    x, weights = image(1, 16, 5, 5), filters(1, 16)
    full = run(x, weights, (2,))
    found = ops.stencil3x3(x, weights, (2,), avg_pool=True)
    assert found.max_pool is None
    assert torch.equal(found.avg_pool, full[1]) and torch.equal(found.filtered, full[2])
    assert ops.stencil3x3(x, max_pool=True).filtered.shape == (0, 1, 16, 5, 5)


def test_only_the_gradients_that_are_needed(backend: str) -> None:
    """A gradient is the same whether or not the others are computed; an unused output counts as zero."""
    x, weights = image(2, 17, 6, 5), filters(2, 17)
    grads = tuple(torch.randn(size) for size in [(2, 17, 6, 5)] * 2 + [(2, 2, 17, 6, 5)])
    _, _, _, grad_x, grad_weights = run(x, weights, (1, 2), grads=grads)
    for leaves in ((True, False), (False, True)):
        a, b = x.detach().requires_grad_(leaves[0]), weights.detach().requires_grad_(leaves[1])
        outputs = ops.stencil3x3(a, b, (1, 2), max_pool=True, avg_pool=True)
        pairs = [pair for pair in zip(outputs, grads, strict=True) if pair[0] is not None]
        roots, cotangents = zip(*(pair for pair in pairs if pair[0].requires_grad), strict=True)
        torch.autograd.backward(roots, cotangents)
        assert a.grad is None or torch.equal(a.grad, grad_x)
        assert b.grad is None or torch.equal(b.grad, grad_weights)
    for used in range(3):
        only_one = [grad if k == used else torch.zeros_like(grad) for k, grad in enumerate(grads)]
        *_, expected_x, expected_weights = run(x, weights, (1, 2), grads=tuple(only_one))
        a, b = x.detach().requires_grad_(), weights.detach().requires_grad_()
        output = ops.stencil3x3(a, b, (1, 2), max_pool=True, avg_pool=True)[used]
        assert output is not None
        output.backward(grads[used])
        torch.testing.assert_close(a.grad, expected_x)
        if used == 2:
            torch.testing.assert_close(b.grad, expected_weights)


def test_is_deterministic_for_any_number_of_threads() -> None:
    x, weights = image(5, 32, 24, 8), filters(3, 32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        two = run(x, weights, (1, 2, 1))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(two, run(x, weights, (1, 2, 1)), strict=True))


@pytest.mark.parametrize("stride", [1, 2])
def test_gradcheck(backend: str, stride: int) -> None:
    # Distinct values, none near 0: no ties, no kink.
    x = torch.randperm(2 * 3 * 5 * 4).double().view(2, 3, 5, 4) / 7 - 8.1
    weights = torch.randn(2, 3, 3, 3, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, weights: Tensor) -> tuple[Tensor | None, ...]:
        return ops.stencil3x3(x, weights, (1, 2), stride, max_pool=True, avg_pool=True)

    assert torch.autograd.gradcheck(function, (x.requires_grad_(), weights))


def test_the_reference_is_differentiable_twice() -> None:
    x = torch.randn(1, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    with ops.backend("reference"):
        assert torch.autograd.gradgradcheck(lambda a, b: ops.stencil3x3(a, b, (1,)).filtered, (x, weights))


X = image(1, 4, 5, 5)
