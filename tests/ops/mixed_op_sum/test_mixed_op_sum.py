"""`ops.mixed_op_sum` against `nn.BatchNorm2d`: values, gradients and running statistics."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoreid_fast import ops

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
SHAPES = [(2, 3, 7, 5), (3, 8, 6, 4), (1, 33, 9, 9), (2, 2, 67, 65), (5, 130, 1, 1), (2, 1, 1, 3)]
"""Odd sizes, more channels than a vector, planes and rows larger than a tile, 1x1 planes, one channel."""


def node(
    shape: tuple[int, ...], count: int, layout: torch.memory_format = torch.contiguous_format
) -> tuple[list[Tensor], Tensor, Tensor, list[bool]]:
    """Candidates away from 0, weights, an output gradient, and flags: every third one is plain."""
    candidates = [
        (torch.randn(shape) * (1 + k) + k - 1).contiguous(memory_format=layout) for k in range(count)
    ]
    return candidates, torch.rand(count), torch.randn(shape), [k % 3 != 2 for k in range(count)]


def run(
    candidates: list[Tensor], weights: Tensor, grad: Tensor, normalized: list[bool], **options: Any
) -> list[Tensor]:
    """y, the gradient of each candidate, the gradient of the weights."""
    leaves = [each.detach().requires_grad_() for each in (*candidates, weights)]
    y = ops.mixed_op_sum(leaves[:-1], leaves[-1], normalized, **options)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad.to(y.dtype))]


def batch_norms(normalized: list[bool], channels: int, dtype: torch.dtype) -> list[nn.Module]:
    return [
        nn.BatchNorm2d(channels, affine=False, dtype=dtype) if flag else nn.Identity() for flag in normalized
    ]


def definition(
    candidates: list[Tensor], weights: Tensor, grad: Tensor, norms: list[nn.Module], dtype: torch.dtype
) -> list[Tensor]:
    """The outputs of `run`, computed by torch's batch norm."""
    leaves = [each.detach().to(dtype).requires_grad_() for each in (*candidates, weights)]
    y = sum(w * norm(z) for w, norm, z in zip(leaves[-1].unbind(), norms, leaves[:-1], strict=True))
    return [y.detach(), *torch.autograd.grad(y, leaves, grad.to(dtype))]


def assert_parity(found: list[Tensor], reference: list[Tensor], truth: list[Tensor]) -> None:
    for ours, theirs, exact in zip(found, reference, truth, strict=True):
        scale = exact.abs().max().item() + 1e-30
        error, allowed = (ours.double() - exact).abs().max(), (theirs.double() - exact).abs().max()
        assert error <= 2 * allowed + 2e-6 * scale
        assert (ours.double() - exact).norm() <= 2 * (theirs.double() - exact).norm() + 1e-6 * exact.norm()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_batch_norm(backend: str, shape: tuple[int, ...], layout: str) -> None:
    candidates, weights, grad, normalized = node(shape, 5, LAYOUTS[layout])
    found = run(candidates, weights, grad, normalized)
    truth, reference = (
        definition(candidates, weights, grad, batch_norms(normalized, shape[1], dtype), dtype)
        for dtype in (torch.float64, torch.float32)
    )
    assert_parity(found, reference, truth)
    assert found[0].stride() == candidates[0].stride()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_running_statistics_equal_those_of_batch_norm(backend: str, layout: str) -> None:
    candidates, weights, grad, normalized = node((3, 4, 5, 6), 4, LAYOUTS[layout])
    norms = batch_norms(normalized, 4, torch.float64)
    running_mean, running_var = torch.zeros(4, 4), torch.ones(4, 4)
    running = {"running_mean": running_mean, "running_var": running_var}
    for _ in range(3):
        run(candidates, weights, grad, normalized, **running)
        definition(candidates, weights, grad, norms, torch.float64)
    for k, norm in enumerate(norms):
        if isinstance(norm, nn.BatchNorm2d):
            torch.testing.assert_close(running_mean[k].double(), norm.running_mean, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(running_var[k].double(), norm.running_var, rtol=1e-5, atol=1e-6)
        norm.eval()
    before = running_mean.clone()
    found = run(candidates, weights, grad, normalized, training=False, **running)
    truth = definition(candidates, weights, grad, norms, torch.float64)
    for ours, exact in zip(found, truth, strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-5)
    assert torch.equal(running_mean, before)


def statistics_of(z: Tensor) -> Tensor:
    return torch.stack([z.mean((0, 2, 3)), z.var((0, 2, 3), unbiased=False)])


def test_given_statistics_are_used_and_differentiated(backend: str) -> None:
    candidates, weights, grad, normalized = node((3, 4, 5, 6), 4)
    given_ones = [statistics_of(z) if k != 1 else None for k, z in enumerate(candidates)]
    found = run(candidates, weights, grad, normalized, statistics=given_ones)
    for ours, theirs in zip(found, run(candidates, weights, grad, normalized), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    zero = torch.zeros(1)
    moved = ops.mixed_op_sum(candidates[:1], zero + 1, [True], statistics=[statistics_of(candidates[0] + 2)])
    plain = ops.mixed_op_sum(candidates[:1], zero + 1, [True])
    deviation = statistics_of(candidates[0])[1].sqrt()[:, None, None]
    torch.testing.assert_close(moved, plain - 2 / deviation, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_have_statistics_in_float32(backend: str, dtype: torch.dtype) -> None:
    candidates, weights, grad, normalized = node((4, 6, 9, 5), 5)
    candidates = [z.to(dtype) for z in candidates]
    found = run(candidates, weights, grad, normalized)
    truth = definition(
        candidates, weights, grad.to(dtype), batch_norms(normalized, 6, torch.float64), torch.float64
    )
    assert [each.dtype for each in found] == [dtype] * 6 + [torch.float32]
    step = torch.finfo(dtype).eps
    for ours, exact in zip(found[:-1], truth[:-1], strict=True):  # rounded once
        assert (ours.double() - exact).abs().max() <= 0.6 * step * exact.abs().max()
    torch.testing.assert_close(found[-1].double(), truth[-1], rtol=1e-5, atol=1e-4)


def test_a_large_mean_costs_no_precision(backend: str) -> None:
    """The sum of squares minus the squared mean would lose all digits."""
    z = torch.randn(4, 3, 20, 10, dtype=torch.float64)
    far = (z + 3000).float()
    exact = nn.BatchNorm2d(3, affine=False, dtype=torch.float64)(far.double())
    allowed = 5e-3 if backend == "reference" else 5e-4  # torch folds the mean into an offset
    assert (ops.mixed_op_sum([far], torch.ones(1), [True]).double() - exact).abs().max() < allowed


def test_other_layouts_slices_and_repeats(backend: str) -> None:
    candidates, weights, grad, normalized = node((2, 5, 6, 4), 4)
    wide = torch.randn(4, 10, 12, 9)
    odd = [
        candidates[0],
        wide[::2, 1:6, 3:9, 2:6],
        candidates[1].contiguous(memory_format=torch.channels_last),
        candidates[0],  # once more
    ]
    expected = run([z.clone(memory_format=torch.contiguous_format) for z in odd], weights, grad, normalized)
    for ours, theirs in zip(run(odd, weights, grad, normalized), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    expanded = torch.ones(()).expand(2, 5, 6, 4)
    for ours, theirs in zip(
        run(odd, weights, expanded, normalized), run(odd, weights, expanded.clone(), normalized), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_a_transposed_candidate_of_one_row(backend: str) -> None:
    """With such strides torch's own batch norm has a wrong gradient (`ops.strides`)."""
    z, weights, grad = torch.randn(3, 2, 1, 4), torch.rand(2), torch.randn(3, 2, 1, 4)
    transposed = z.transpose(1, 3).contiguous().transpose(1, 3)
    expected = run([z, z], weights, grad, [True, True])
    for ours, theirs in zip(run([z, transposed], weights, grad, [True, True]), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_zero_weights_still_have_a_gradient(backend: str) -> None:
    candidates, weights, grad, normalized = node((2, 3, 4, 5), 3)
    y, *grads, grad_weights = run(candidates, torch.zeros(3), grad, normalized)
    assert not y.any()
    assert not any(each.any() for each in grads)
    torch.testing.assert_close(grad_weights, run(candidates, weights, grad, normalized)[-1])


def test_only_leaves_get_a_gradient(backend: str) -> None:
    candidates, weights, grad, normalized = node((2, 3, 4, 5), 4)
    full = run(candidates, weights, grad, normalized)
    leaf = candidates[2].detach().requires_grad_()
    ops.mixed_op_sum([*candidates[:2], leaf, candidates[3]], weights, normalized).backward(grad)
    torch.testing.assert_close(leaf.grad, full[3])
    only_weights = weights.detach().requires_grad_()
    ops.mixed_op_sum(candidates, only_weights, normalized).backward(grad)
    torch.testing.assert_close(only_weights.grad, full[-1])


def test_autograd_keeps_only_candidates_and_statistics() -> None:
    pytest.importorskip("autoreid_fast._cpu", reason="no native library: pure-Python install")
    candidates, weights, _, normalized = node((2, 3, 4, 5), 4)
    leaves = [z.requires_grad_() for z in candidates]
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each) or each, lambda each: each):
        ops.mixed_op_sum(leaves, weights, normalized)
    known = {z.data_ptr() for z in (*candidates, weights)}
    assert [tuple(each.shape) for each in kept if each.data_ptr() not in known] == [(2, 4, 3)]


def test_is_the_same_for_any_number_of_threads() -> None:
    for layout in LAYOUTS.values():
        arguments = node((4, 12, 96, 32), 5, layout)
        before, results = torch.get_num_threads(), []
        try:
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                results.append(run(*arguments))
        finally:
            torch.set_num_threads(before)
        assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_gradcheck(backend: str) -> None:
    leaves = [torch.randn(2, 3, 4, 3, dtype=torch.float64).requires_grad_() for _ in range(4)]
    weights = torch.rand(4, dtype=torch.float64).requires_grad_()
    running = torch.randn(4, 3, dtype=torch.float64), torch.rand(4, 3, dtype=torch.float64) + 0.5
    flags = [True, False, True, True]

    def training(weights: Tensor, *candidates: Tensor) -> Tensor:
        known = [None, None, statistics_of(candidates[2]), None]
        return ops.mixed_op_sum(candidates, weights, flags, statistics=known)

    def evaluating(weights: Tensor, *candidates: Tensor) -> Tensor:
        return ops.mixed_op_sum(candidates, weights, flags, *running, training=False)

    assert torch.autograd.gradcheck(training, (weights, *leaves))
    assert torch.autograd.gradcheck(evaluating, (weights, *leaves))


def test_the_reference_is_differentiable_twice() -> None:
    z, weights = torch.randn(2, 3, 4, 3, dtype=torch.float64).requires_grad_(), torch.ones(1).double()

    def second() -> None:
        [grad] = torch.autograd.grad(
            ops.mixed_op_sum([z], weights, [True]).square().sum(), z, create_graph=True
        )
        grad.square().sum().backward()

    with ops.backend("reference"):
        second()


Z = torch.randn(2, 3, 4, 5)
ONE = torch.randn(1, 3, 1, 1)
W = torch.ones(2)


def test_one_value_per_channel_is_fine_without_batch_statistics(backend: str) -> None:
    running = torch.zeros(2, 3), torch.ones(2, 3)
    found = ops.mixed_op_sum([ONE, ONE], W, [True] * 2, *running, training=False, eps=0.0)
    torch.testing.assert_close(found, 2 * ONE)
    torch.testing.assert_close(ops.mixed_op_sum([ONE, ONE], W, [False] * 2), 2 * ONE)
