"""`ops.part_attention` against its reference in float64, by every implementation on this machine."""

from typing import Any

import pytest
import torch
from torch import Tensor

from autoreid_fast import ops
from autoreid_fast.ops.part_attention import PARTS

SHAPES = [(2, 6, 4, 3), (3, 9, 5, 2), (4, 33, 7, 1), (2, 64, 11, 5), (6, 130, 12, 4), (19, 3, 4, 1)]
"""Even and uneven strips, channels past a vector, hidden sizes of 1 and more, images past a vector."""


def problem(
    shape: tuple[int, ...], edges: int, out: int, affine: bool = False, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, dict[str, Tensor]]:
    """Random x and parameters of their usual sizes."""
    channels = shape[1]
    hidden = max(1, channels // 3)

    def weight(*sizes: int) -> Tensor:
        return torch.randn(sizes, dtype=torch.float64).mul(sizes[-1] ** -0.5).to(dtype)

    named = {
        "project_weight": weight(edges, PARTS, hidden, channels),
        "project_bias": weight(edges, PARTS, hidden),
        "key_weight": weight(edges, hidden, hidden),
        "key_bias": weight(edges, hidden),
        "query_weight": weight(edges, hidden, hidden),
        "query_bias": weight(edges, hidden),
        "fuse_weight": weight(edges, out, hidden),
    }
    if affine:
        named["affine"] = torch.randn(2, edges, PARTS, hidden, dtype=torch.float64).to(dtype)
    x = torch.randn(shape, dtype=torch.float64).to(dtype).contiguous(memory_format=torch.channels_last)
    return x, named


def run(x: Tensor, named: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:
    """The bias, and all gradients for a fixed gradient of the bias."""
    leaves = {name: each.detach().requires_grad_() for name, each in {"x": x, **named}.items()}
    bias = ops.part_attention(**leaves, **options)
    generator = torch.Generator().manual_seed(3)
    grad = torch.randn(bias.shape, dtype=torch.float64, generator=generator).to(bias.dtype)
    grads = torch.autograd.grad(bias, list(leaves.values()), grad)
    return {"bias": bias.detach(), **dict(zip(leaves, grads, strict=True))}


def assert_parity(x: Tensor, named: dict[str, Tensor], **options: Any) -> None:
    """The error is at most twice that of the reference, both against the reference in float64."""
    found = run(x, named, **options)
    with ops.backend("reference"):
        theirs = run(x, named, **options)
        wide = {name: each.double() for name, each in named.items()}
        doubled = {key: each.double() if isinstance(each, Tensor) else each for key, each in options.items()}
        truth = run(x.double(), wide, **doubled)
    largest = max(each.abs().max().item() for each in truth.values())
    for name, exact in truth.items():
        assert found[name].dtype == theirs[name].dtype
        error, allowed = ((each[name].double() - exact).abs().max().item() for each in (found, theirs))
        # The gradients of some biases are pure rounding: it is measured against the largest gradient.
        floor = 2e-6 * exact.abs().max().item() + 1e-6 * largest
        assert error <= 2 * allowed + floor, name
        ours, other = ((each[name].double() - exact).norm().item() for each in (found, theirs))
        assert ours <= 2 * other + 1e-6 * exact.norm().item() + 1e-6 * largest * exact.numel() ** 0.5, name


@pytest.mark.parametrize("shape", SHAPES)
def test_parity(backend: str, shape: tuple[int, ...]) -> None:
    x, named = problem(shape, 3, 5, dtype=torch.float32)
    assert_parity(x, named)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_compute_in_float32(backend: str, dtype: torch.dtype) -> None:
    x, named = problem((4, 24, 9, 5), 2, 24, affine=True, dtype=torch.float32)
    found = run(x.to(dtype), named)
    with ops.backend("reference"):
        generator = torch.Generator().manual_seed(3)
        leaves = {"x": x.to(dtype).double(), **{name: each.double() for name, each in named.items()}}
        leaves = {name: each.requires_grad_() for name, each in leaves.items()}
        bias = ops.part_attention(**leaves)
        grad = torch.randn(bias.shape, dtype=torch.float64, generator=generator).to(dtype).double()
        grads = torch.autograd.grad(bias, list(leaves.values()), grad)
    assert (found["bias"].dtype, found["x"].dtype, found["key_weight"].dtype) == (dtype, dtype, torch.float32)
    step = torch.finfo(dtype).eps
    for name, exact in {"bias": bias.detach(), "x": grads[0]}.items():  # rounded once
        assert (found[name].double() - exact).abs().max() <= 0.6 * step * exact.abs().max()
    for name, exact in zip(named, grads[1:], strict=True):
        torch.testing.assert_close(found[name].double(), exact, rtol=1e-4, atol=1e-4, msg=name)


def test_parameters_of_another_dtype(backend: str) -> None:
    x, named = problem((3, 6, 5, 2), 2, 4, dtype=torch.float32)
    halves = {name: each.bfloat16() for name, each in named.items()}
    expected = run(x, {name: each.float() for name, each in halves.items()})
    for name, each in run(x, halves).items():
        torch.testing.assert_close(each, expected[name].to(each.dtype))


def test_other_layouts_and_slices(backend: str) -> None:
    wide = torch.randn(4, 10, 12, 9)
    _, named = problem((2, 5, 7, 4), 2, 3, dtype=torch.float32)
    for odd in (
        wide[::2, 1:6, 3:10, 2:6],
        wide[:2, :5, :7, :4].contiguous(),
        wide.transpose(2, 3)[:2, :5, :7, :4],
        torch.ones(()).expand(2, 5, 7, 4),
    ):
        expected = run(odd.contiguous(memory_format=torch.channels_last), named)
        for name, each in run(odd, named).items():
            torch.testing.assert_close(each, expected[name], rtol=1e-5, atol=1e-5, msg=name)
    named["project_weight"] = named["project_weight"].transpose(2, 3).contiguous().transpose(2, 3)
    x = torch.randn(2, 5, 7, 4)
    leaf = x.clone().requires_grad_()
    bias = ops.part_attention(leaf, **named)
    strided = torch.randn(2, 2, 3, PARTS).mT
    [found] = torch.autograd.grad(bias, leaf, strided, retain_graph=True)
    [expected_x] = torch.autograd.grad(bias, leaf, strided.contiguous())
    torch.testing.assert_close(found, expected_x)


def test_only_leaves_get_a_gradient(backend: str) -> None:
    x, named = problem((3, 6, 5, 2), 2, 4, affine=True, dtype=torch.float32)
    full = run(x, named)
    generator = torch.Generator().manual_seed(3)
    grad = torch.randn(full["bias"].shape, dtype=torch.float64, generator=generator).float()
    leaf = x.clone().requires_grad_()
    ops.part_attention(leaf, **named).backward(grad)
    torch.testing.assert_close(leaf.grad, full["x"])
    only_query = {**named, "query_weight": named["query_weight"].clone().requires_grad_()}
    ops.part_attention(x, **only_query).backward(grad)
    torch.testing.assert_close(only_query["query_weight"].grad, full["query_weight"])
    assert not ops.part_attention(x, **named).requires_grad


def test_backward_computes_only_what_is_needed(backend: str) -> None:
    x, named = problem((3, 6, 5, 2), 2, 4, dtype=torch.float32)
    parameters = list(named.values())
    _, *kept = torch.ops.autoreid_fast.part_attention(x, *parameters, None, None, False, 1e-5)
    grad = torch.randn(2, 3, PARTS, 4)
    backward = torch.ops.autoreid_fast.part_attention_backward
    both = backward(grad, x, parameters, None, *kept, True, False, 1e-5, True, True)
    only_x, none = backward(grad, x, parameters, None, *kept, True, False, 1e-5, True, False)
    nothing, only_grads = backward(grad, x, parameters, None, *kept, True, False, 1e-5, False, True)
    assert none == []
    assert nothing.shape == (0, *x.shape[1:])
    assert torch.equal(only_x, both[0])
    assert all(torch.equal(one, other) for one, other in zip(only_grads, both[1], strict=True))


def test_is_the_same_for_any_number_of_threads() -> None:
    x, named = problem((6, 40, 24, 32), 4, 40, dtype=torch.float32)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(run(x, named))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(each, other[name]) for other in results[1:] for name, each in results[0].items())


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_gradcheck(backend: str, relu: bool, training: bool) -> None:
    x, named = problem((3, 6, 5, 2), 2, 3, affine=True)
    running = torch.randn(2, PARTS, 2).double(), torch.rand(2, PARTS, 2).double() + 0.5
    names = list(named)

    def bias(x: Tensor, *tensors: Tensor) -> Tensor:
        given = dict(zip(names, tensors, strict=True))
        statistics = dict(zip(("running_mean", "running_var"), running, strict=True))
        return ops.part_attention(
            x, **given, **({} if training else statistics), relu=relu, training=training
        )

    assert torch.autograd.gradcheck(bias, [each.requires_grad_() for each in (x, *named.values())])


def test_the_reference_is_differentiable_twice() -> None:
    x, named = problem((3, 6, 5, 2), 1, 3)

    def second() -> None:
        leaf = x.clone().requires_grad_()
        [grad] = torch.autograd.grad(
            ops.part_attention(leaf, **named).square().sum(), leaf, create_graph=True
        )
        grad.square().sum().backward()

    with ops.backend("reference"):
        second()
