"""More than 2^31 elements in little memory: shapes on the meta device, strides in a sparse file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from autoreid_fast import ops
from autoreid_fast.evaluation.protocol import Labels, relevance_of
from autoreid_fast.evaluation.ranking import rank_distances, rank_gallery

BEYOND = 2**31 + 7


@pytest.mark.parametrize("op", ["stencil3x3", "separable_conv", "mixed_op_sum", "part_attention"])
def test_shapes_of_more_than_2_to_the_31_elements(op: str) -> None:
    """Shapes and strides of meta tensors are computed without overflow."""
    x = torch.empty(3, 2**15, 2**8, 2**8, device="meta")
    if op == "stencil3x3":
        found = ops.stencil3x3(x, max_pool=True).max_pool
    elif op == "separable_conv":
        depthwise, pointwise = (
            torch.empty(1, 2**15, 3, 3, device="meta"),
            torch.empty(1, 8, 2**15, device="meta"),
        )
        found = ops.separable_conv(x, depthwise, pointwise, (1,)).z[0]
        assert found.shape == (3, 8, 2**8, 2**8)
        return
    elif op == "mixed_op_sum":
        found = ops.mixed_op_sum([x], torch.empty(1, device="meta"), [False])
    else:
        shapes = ((1, 4, 2, 2**15), (1, 4, 2), (1, 2, 2), (1, 2), (1, 2, 2), (1, 2), (1, 5, 2))
        part = ops.part_attention(x, *(torch.empty(shape, device="meta") for shape in shapes))
        assert part.shape == (1, 3, 4, 5)
        return
    assert found is not None
    assert found.shape == x.shape
    assert found.numel() > BEYOND


class Spread:
    """Copies of small tensors in a sparse file, with a first stride of more than 2^31 elements."""

    def __init__(self, path: Path) -> None:
        self.storage = torch.from_file(
            str(path), shared=True, size=3 * BEYOND
        )  # 24 GiB, of which a few pages are on disk
        self.used = 0

    def __call__(self, x: Tensor) -> Tensor:
        copy = self.storage[self.used :].as_strided(x.shape, (BEYOND, *x.stride()[1:])).copy_(x)
        self.used += x[0].numel()
        return copy


def calls() -> dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]]:
    """A call of every op that accepts strides, and the arguments to spread."""
    rows, labels = torch.randint(-3, 4, (3, 5)).float(), torch.tensor([0, 0, 1])
    cams = torch.tensor([1, 2, 1]), torch.tensor([2, 1, 2])
    block = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0], [1.0, 1.0, 0.0]])
    people = Labels(labels, labels, *cams)
    x, filters = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 3, 3)
    last = x.contiguous(memory_format=torch.channels_last)
    part = [torch.randn(1, 4, 2, 3), torch.randn(1, 4, 2), torch.randn(1, 2, 2), torch.randn(1, 2)]
    part += [torch.randn(1, 2, 2), torch.randn(1, 2), torch.randn(1, 5, 2)]

    def filtered(a: Tensor, b: Tensor) -> Any:
        return ops.stencil3x3(a, b, (1, 2), 1, True, True, True)

    def mixed(a: Tensor, b: Tensor) -> Tensor:
        return ops.mixed_op_sum([a, b], torch.ones(2), [True, False])

    return {
        "nearest": (lambda a, b: ops.nearest(a, b, 2), (rows, rows)),
        "nearest_block": (lambda a: ops.nearest_block(a, 3), (block,)),
        "batch_hard": (lambda a: ops.batch_hard(a, labels), (rows,)),
        "rank_gallery": (lambda a, b: rank_gallery(a, b, people), (rows, rows)),
        "rank_distances": (lambda a: rank_distances(a, relevance_of(people)), (block,)),
        "k_reciprocal": (lambda a, b: ops.k_reciprocal(a, b, 2, 1), (rows, rows)),
        "stencil3x3": (filtered, (x, filters)),
        "stencil3x3, channels last": (filtered, (last, filters)),
        "separable_conv": (
            lambda a, b, c: ops.separable_conv(a, b, c, (1, 2)).z,
            (x, filters, torch.randn(2, 4, 3)),
        ),
        "mixed_op_sum": (mixed, (x, x)),
        "mixed_op_sum, channels last": (mixed, (last, last)),
        "part_attention": (lambda a: ops.part_attention(a, *part), (x,)),
        "sync_batch_norm": (lambda a: ops.sync_batch_norm(a, None, None)[0], (x,)),
    }


def results(run: Callable[..., Any], arguments: list[Tensor]) -> list[Tensor]:
    """Outputs of `run`, and the gradients of its floating arguments if there are any."""
    leaves = [each.detach().requires_grad_(each.is_floating_point()) for each in arguments]
    found = run(*leaves)
    outputs = [each for each in (found if isinstance(found, tuple) else (found,)) if each is not None]
    kept = [each for each in outputs if each.requires_grad]
    if not kept:
        return outputs
    grads = [torch.arange(each.numel()).view(each.shape).remainder(5).sub(2).to(each) for each in kept]
    return [*outputs, *torch.autograd.grad(kept, leaves, grads)]


@pytest.mark.parametrize("call", list(calls()))
def test_strides_of_more_than_2_to_the_31_elements(call: str, tmp_path: Path) -> None:
    run, packed = calls()[call]
    spread = Spread(tmp_path / "holes")
    near, far = results(run, list(packed)), results(run, [spread(each) for each in packed])
    for one, two in zip(far, near, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


def test_an_image_after_2_to_the_31_bytes_of_a_cache(tmp_path: Path) -> None:
    count = BEYOND // (16 * 8 * 3) + 1
    images = torch.from_file(str(tmp_path / "holes"), shared=True, size=count * 16 * 8 * 3, dtype=torch.uint8)
    images = images.view(count, 16, 8, 3)
    images[-1] = torch.randint(0, 256, (16, 8, 3))
    last, zero = torch.tensor([count - 1]), torch.tensor([0])
    expected = ops.batch_from_cache(images[-1:].clone(), zero, zero, zero, zero == 0)
    assert torch.equal(ops.batch_from_cache(images, last, zero, zero, zero == 0), expected)
