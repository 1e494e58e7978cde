"""`ops.part_attention` against the part-aware module of `nas`, which repeats and concatenates."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoreid_fast import ops
from autoreid_fast.nas.operations.part_aware import PartAware
from autoreid_fast.nas.operations.registry import build_operation
from autoreid_fast.ops.part_attention.strips import PARTS, strip_bounds


def modules(channels: int, edges: int, affine: bool = False, stride: int = 1) -> list[PartAware]:
    """Double-precision modules away from their initial values."""
    made = [build_operation("part_aware", channels, stride, affine).double() for _ in range(edges)]
    with torch.no_grad():
        for module in made:
            for parameter in module.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def stacked(made: list[PartAware], name: Callable[[PartAware], Tensor], *shape: int) -> Tensor:
    return torch.stack([name(module).detach().reshape(shape) for module in made])


def arguments(made: list[PartAware], channels: int) -> dict[str, Tensor]:
    """The modules' parameters as the op takes them, with fuse_weight (E, channels, h)."""
    hidden = made[0].hidden

    def fuse(module: PartAware) -> Tensor:
        if isinstance(module.fuse, nn.Sequential):
            return module.fuse[0].weight[:, channels:]
        return torch.cat([module.fuse.conv.weight, module.fuse.conv_shifted.weight])[:, channels:]

    named = {
        "project_weight": stacked(made, lambda m: m.project[1].weight, PARTS, hidden, channels),
        "project_bias": stacked(made, lambda m: m.project[1].bias, PARTS, hidden),
        "key_weight": stacked(made, lambda m: m.key.weight, hidden, hidden),
        "key_bias": stacked(made, lambda m: m.key.bias, hidden),
        "query_weight": stacked(made, lambda m: m.query.weight, hidden, hidden),
        "query_bias": stacked(made, lambda m: m.query.bias, hidden),
        "fuse_weight": stacked(made, fuse, channels, hidden),
    }
    if made[0].project[2].affine:
        scale = stacked(made, lambda m: m.project[2].weight, PARTS, hidden)
        named["affine"] = torch.stack([scale, stacked(made, lambda m: m.project[2].bias, PARTS, hidden)])
    return named


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("shape", [(2, 6, 4, 3), (3, 9, 11, 2)])
def test_equals_the_module_without_its_concatenation(
    backend: str, shape: tuple[int, ...], affine: bool
) -> None:
    """Two modules on one x in float64: outputs, running statistics, d x, the gradient of each parameter."""
    channels = shape[1]
    made = modules(channels, 2, affine)
    norms = [module.project[2] for module in made]
    running = {
        "running_mean": stacked(made, lambda m: m.project[2].running_mean, PARTS, -1),
        "running_var": stacked(made, lambda m: m.project[2].running_var, PARTS, -1),
    }
    named = {name: each.requires_grad_() for name, each in arguments(made, channels).items()}
    x = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    grad = torch.randn((2, *shape), dtype=torch.float64)
    own, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    rows = torch.tensor(strip_bounds(shape[2])).diff().flatten()

    def by_bias() -> Tensor:
        bias = ops.part_attention(own, **named, **running, training=made[0].training)
        strips = bias.repeat_interleave(rows, 2).mT.unsqueeze(-1)  # (E, N, D, H, 1)
        fused = [
            module.fuse[1](F.conv2d(own, module.fuse[0].weight.detach()[:, :channels]) + strips[e])
            for e, module in enumerate(made)
        ]
        return torch.stack(fused)

    def by_modules() -> Tensor:
        return torch.stack([module(theirs) for module in made])

    torch.testing.assert_close(by_bias(), by_modules(), rtol=1e-9, atol=1e-9)
    for module in made:
        module.fuse[1].reset_running_stats()
        module.zero_grad()
    (by_bias() * grad).sum().backward()
    (by_modules() * grad).sum().backward()
    torch.testing.assert_close(own.grad, theirs.grad, rtol=1e-9, atol=1e-9)
    for parameter in [parameter for module in made for parameter in module.parameters()]:
        parameter.data, parameter.grad = parameter.grad, None  # read as `arguments` reads parameters
    for name, expected in arguments(made, channels).items():
        torch.testing.assert_close(named[name].grad, expected, rtol=1e-9, atol=1e-9, msg=name)
    for e, norm in enumerate(norms):
        for name, each in running.items():
            torch.testing.assert_close(each[e].flatten(), getattr(norm, name), rtol=1e-9, atol=1e-9)


def test_evaluates_by_running_statistics_as_the_module(backend: str) -> None:
    made = modules(6, 1)
    [module] = made
    x = torch.randn(3, 6, 9, 2, dtype=torch.float64)
    module(x)
    module.eval()
    running = {
        "running_mean": stacked(made, lambda m: m.project[2].running_mean, PARTS, -1),
        "running_var": stacked(made, lambda m: m.project[2].running_var, PARTS, -1),
    }
    before = {name: each.clone() for name, each in running.items()}
    conv, norm = module.fuse
    for images in (x, x[:1]):
        bias = ops.part_attention(images, **arguments(made, 6), **running, training=False)[0]
        strips = bias.repeat_interleave(torch.tensor(strip_bounds(9)).diff().flatten(), 1).mT.unsqueeze(-1)
        found = norm(F.conv2d(images, conv.weight[:, :6]) + strips)
        torch.testing.assert_close(found, module(images), rtol=1e-9, atol=1e-9)
    assert all(torch.equal(each, before[name]) for name, each in running.items())


def test_relu_is_the_one_of_the_stride_2_module(backend: str) -> None:
    [module] = made = modules(6, 1, stride=2)
    x = torch.randn(3, 6, 8, 4, dtype=torch.float64)
    bias = ops.part_attention(x, **arguments(made, 6), relu=True)[0]
    reduce = module.fuse
    weight = torch.cat([reduce.conv.weight, reduce.conv_shifted.weight])[:, :6]
    even, odd = F.conv2d(x.relu(), weight)[:, :3, ::2, ::2], F.conv2d(x.relu(), weight)[:, 3:, 1::2, 1::2]
    found = torch.cat([even, odd], 1) + bias.mT.unsqueeze(-1)  # 8 rows: one of each strip is left
    torch.testing.assert_close(reduce.bn(found), module(x), rtol=1e-9, atol=1e-9)
