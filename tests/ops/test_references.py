"""The references where native kernels hide them: their backward ops against autograd, and other devices."""

from collections.abc import Sequence
from itertools import product

import pytest
import torch
from torch import Tensor

from autoreid_fast.ops.batch_from_cache.reference import batch_from_cache
from autoreid_fast.ops.batch_hard import reference as hard
from autoreid_fast.ops.batch_norm.strides import canonical_strides
from autoreid_fast.ops.k_reciprocal import reference as reciprocal
from autoreid_fast.ops.mixed_op_sum import reference as mixed
from autoreid_fast.ops.part_attention import reference as part
from autoreid_fast.ops.part_attention.strips import PARTS
from autoreid_fast.ops.separable_conv import reference as separable
from autoreid_fast.ops.stencil3x3 import reference as stencil


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def leaf(*shape: int) -> Tensor:
    return random(*shape).requires_grad_()


def assert_same(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for ours, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("printed", [False, True])
def test_batch_hard(printed: bool) -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, 3, 0])  # 2 has no positive
    x, grad = leaf(10, 5), torch.tensor(2.5, dtype=torch.float64)
    for margin in (0.3, 1.5, -0.5):
        loss, *found = hard.batch_hard(x, labels, margin, printed)
        arguments = (grad, x.detach(), *found, margin, printed)
        assert_same([hard.batch_hard_backward(*arguments)], torch.autograd.grad(loss, x, grad))
        with_half = hard.batch_hard_backward(grad, x.detach().half(), *found, margin, printed)
        assert with_half.dtype == torch.float16


@pytest.mark.parametrize(("printed", "margin"), [(False, 2.0), (True, -2.0)])
def test_batch_hard_has_no_gradient_at_the_kink(printed: bool, margin: float) -> None:
    x, labels = torch.tensor([[0.0], [1.0], [3.0], [9.0]]).double(), torch.tensor([0, 0, 1, 2])
    loss, *found = hard.batch_hard(x.requires_grad_(), labels, margin, printed)  # excess: 1 - 3 and 1 - 2
    by_hand = hard.batch_hard_backward(torch.ones_like(loss), x.detach(), *found, margin, printed)
    for grad in (by_hand, *torch.autograd.grad(loss, x)):
        assert grad.flatten().tolist() == [-0.5, 1.0, -0.5, 0.0]  # of the second anchor only


@pytest.mark.parametrize("printed", [False, True])
def test_batch_hard_has_no_gradient_at_distance_0(printed: bool) -> None:
    x = torch.ones(8, 5)
    loss, *found = hard.batch_hard(x, torch.arange(8) // 4, -0.3 if printed else 0.3, printed)
    grad = hard.batch_hard_backward(loss, x, *found, -0.3 if printed else 0.3, printed)
    assert torch.equal(grad, torch.zeros_like(x))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_mixed_op_sum(layout: torch.memory_format) -> None:
    kinds = [mixed.PLAIN, mixed.BATCH, mixed.GIVEN, mixed.FIXED, mixed.BATCH]
    leaves = [random(3, 4, 5, 6).contiguous(memory_format=layout).requires_grad_() for _ in kinds]
    weights, grad = leaf(5), random(3, 4, 5, 6)
    statistics = random(2, 5, 4).abs() + 0.5
    given = leaves[2].detach()
    statistics[:, 2] = torch.stack([given.mean((0, 2, 3)), given.var((0, 2, 3), unbiased=False)])
    y, used = mixed.mixed_op_sum(leaves, weights, kinds, statistics, 1e-3)
    *expected, expected_weights = torch.autograd.grad(y, [*leaves, weights], grad)
    constants = [each.detach() for each in leaves], weights.detach(), kinds, used.detach(), 1e-3
    for wanted in ([0, 1, 2, 3, 4], [3, 1], []):
        found, found_weights = mixed.mixed_op_sum_backward(grad, *constants, wanted)
        assert_same([*found, found_weights], [*(expected[k] for k in wanted), expected_weights])
        assert all(each.is_contiguous(memory_format=layout) for each in (y, *found))


def test_mixed_op_sum_has_the_layout_of_its_first_candidate() -> None:
    x, last = random(3, 4, 5, 6), torch.channels_last
    found = [
        mixed.memory_format(each) for each in (x.contiguous(memory_format=last), x, x[..., ::2], x[:, :1])
    ]
    assert found == [last, *3 * [torch.contiguous_format]]
    for layout, other in ((last, torch.contiguous_format), (torch.contiguous_format, last)):
        candidates = [x.contiguous(memory_format=each) for each in (layout, other)]
        arguments = (candidates, random(2), [mixed.PLAIN, mixed.BATCH])
        y, used = mixed.mixed_op_sum(*arguments, None, 1e-3)
        grads, _ = mixed.mixed_op_sum_backward(x, *arguments, used, 1e-3, [0, 1])
        assert all(each.is_contiguous(memory_format=layout) for each in (y, *grads))


@pytest.mark.parametrize(("affine", "batch", "relu"), list(product([False, True], repeat=3)))
def test_part_attention(affine: bool, batch: bool, relu: bool) -> None:
    edges, hidden, channels, out = 2, 3, 5, 4
    x = random(3, channels, 7, 2).contiguous(memory_format=torch.channels_last).requires_grad_()
    shapes = [(edges, PARTS, hidden, channels), (edges, PARTS, hidden)]
    shapes += 2 * [(edges, hidden, hidden), (edges, hidden)] + [(edges, out, hidden)]
    parameters = [leaf(*shape) for shape in shapes]
    scale = leaf(2, edges, PARTS, hidden) if affine else None
    if scale is not None:
        scale.data[..., 0] = 0  # at the kink of the ReLU
    statistics = None if batch else random(2, edges, PARTS, hidden).abs() + 0.5
    bias, *kept = part.part_attention(x, *parameters, scale, statistics, relu, 1e-3)
    grad = random(*bias.shape)
    leaves = [x, *parameters, *([] if scale is None else [scale])]
    expected_x, *expected = torch.autograd.grad(bias, leaves, grad)
    constants = [each.detach() for each in parameters], None if scale is None else scale.detach()
    arguments = (grad, x.detach(), *constants, *(each.detach() for each in kept), batch, relu, 1e-3)
    found_x, found = part.part_attention_backward(*arguments, True, True)
    assert_same([found_x, *found], [expected_x, *expected])
    assert found_x.is_contiguous(memory_format=torch.channels_last)
    only_x, none = part.part_attention_backward(*arguments, True, False)
    nothing, only = part.part_attention_backward(*arguments, False, True)
    assert none == [] and nothing.shape == (0, *x.shape[1:])
    assert_same([only_x, *only], [expected_x, *expected])


@pytest.mark.parametrize("stride", [1, 2])
def test_separable_conv(stride: int) -> None:
    x, depthwise, pointwise = leaf(2, 3, 7, 6), leaf(2, 3, 3, 3), leaf(2, 4, 3)
    z, statistics = separable.separable_conv(x, depthwise, pointwise, [1, 2], stride, True)
    rows = z.detach().transpose(1, 2).flatten(2)
    assert_same([statistics], [torch.stack([rows.mean(2), rows.var(2, unbiased=False)], 1)])
    half = [each.detach().bfloat16() for each in (x, depthwise, pointwise)]
    nothing = separable.separable_conv(*half, [1, 2], stride, False)[1]
    assert (nothing.shape, nothing.dtype) == ((0, 2, 4), torch.float32)
    grad = random(*z.shape)
    expected = torch.autograd.grad(z, [x, depthwise, pointwise], grad)
    arguments = (grad, *(each.detach() for each in (x, depthwise, pointwise)), [1, 2], stride)
    for need_x, need_weights in product([False, True], repeat=2):
        found = separable.separable_conv_backward(*arguments, need_x, need_weights)
        needed = (need_x, need_weights, need_weights)
        assert_same(found, [each if need else each[:0] for each, need in zip(expected, needed, strict=True)])


@pytest.mark.parametrize(("stride", "relu"), list(product([1, 2], [False, True])))
def test_stencil3x3(stride: int, relu: bool) -> None:
    x, weights = leaf(2, 3, 7, 6), leaf(2, 3, 3, 3)
    outputs = stencil.stencil3x3(x, weights, [1, 2], stride, relu, True, True)
    grads = [random(*output.shape) for output in outputs]
    arguments = (x.detach(), weights.detach(), [1, 2], stride, relu)
    for given in product([False, True], repeat=3):
        some = [grad if here else None for grad, here in zip(grads, given, strict=True)]
        chosen = [pair for pair, here in zip(zip(outputs, grads, strict=True), given, strict=True) if here]
        expected = [torch.zeros_like(x), torch.zeros_like(weights)]
        if chosen:
            taken, of = zip(*chosen, strict=True)
            got = torch.autograd.grad(taken, (x, weights), of, retain_graph=True, allow_unused=True)
            expected = [zero if one is None else one for zero, one in zip(expected, got, strict=True)]
        for needed in product([False, True], repeat=2):
            found = stencil.stencil3x3_backward(*some, *arguments, *needed)
            assert_same(
                found, [each if need else each[:0] for each, need in zip(expected, needed, strict=True)]
            )
            assert found[0].movedim(-3, -1).is_contiguous()


def test_stencil3x3_shapes_of_empty_outputs_and_layout_of_the_weights_gradient() -> None:
    x, weights = random(2, 3, 7, 5), random(1, 3, 3, 3).transpose(2, 3)
    outputs = stencil.stencil3x3(x, weights[:0], [], 2, True, False, False)
    assert [tuple(each.shape) for each in outputs] == [(0, 3, 4, 3), (0, 3, 4, 3), (0, 2, 3, 4, 3)]
    grad = random(1, 2, 3, 4, 3)
    found = stencil.stencil3x3_backward(None, None, grad, x, weights, [1], 2, True, True, True)
    assert found[1].is_contiguous()


def test_outputs_are_on_the_device_of_the_arguments() -> None:
    """Tensors on the meta device raise if combined with one created on the CPU."""
    features, index = torch.empty(8, 4, device="meta"), torch.zeros(8, dtype=torch.int64, device="meta")
    images = torch.empty(9, 6, 5, 3, dtype=torch.uint8, device="meta")
    batch = batch_from_cache(images, index, index, index, index.bool())
    assert batch.shape == (8, 3, 6, 5) and batch.device == index.device
    loss, *found = hard.batch_hard(features, index, 0.3, False)
    grad = hard.batch_hard_backward(loss, features, *found, 0.3, False)
    assert {each.device for each in (loss, *found, grad, *reciprocal.neighbors(features, 3))} == {
        index.device
    }


@pytest.mark.parametrize(
    ("shape", "strides", "layout"),
    [
        ((1, 2, 1, 2), (4, 1, 2, 2), torch.channels_last),
        ((1, 2, 1, 2, 1), (9, 1, 9, 2, 9), torch.channels_last_3d),
    ],
)
def test_canonical_strides_of_dimensions_of_size_1(
    shape: tuple[int, ...], strides: tuple[int, ...], layout: torch.memory_format
) -> None:
    x = random(4).as_strided(shape, strides)
    found = canonical_strides(x)
    assert torch.equal(found, x) and found.data_ptr() == x.data_ptr()
    assert found.stride() == torch.empty(shape, memory_format=layout).stride() != x.stride()
