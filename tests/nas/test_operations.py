"""Operations compared with their definitions, and their shapes at odd sizes."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.macro import Head
from autoreid_fast.nas.operations.layers import AveragePool, FactorizedReduce
from autoreid_fast.nas.operations.registry import OPERATIONS, build_operation
from autoreid_fast.ops.stencil3x3 import average_pool


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS.names())
def test_shapes_and_affine(name: str, stride: int, affine: bool) -> None:
    for height, width in [(8, 4), (7, 5), (5, 1), (4, 3)]:
        operation = build_operation(name, 6, stride, affine)
        x = torch.randn(2, 6, height, width, requires_grad=True)
        out = operation(x)
        assert out.shape == (2, 6, -(-height // stride), -(-width // stride))
        out.square().sum().backward()
        assert torch.isfinite(x.grad).all()
    norms = [module for module in operation.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert all(norm.affine == affine for norm in norms)
    if "pool" in name:
        assert len(norms) == (0 if affine else 1)


def test_unknown_operation() -> None:
    with pytest.raises(AutoReIDError, match="'conv_7x7'"):
        build_operation("conv_7x7", 4, 1, True)


@pytest.mark.parametrize(("height", "width"), [(8, 4), (7, 4), (8, 5), (7, 5), (1, 1), (2, 1), (3, 1)])
def test_factorized_reduce_is_two_strided_convolutions(height: int, width: int) -> None:
    module = FactorizedReduce(3, 5, affine=True).eval()
    x = torch.randn(2, 3, height, width)
    positive = F.pad(x.clamp(min=0), (0, 1, 0, 1))
    straight = F.conv2d(positive[:, :, :height, :width], module.conv.weight, stride=2)
    shifted = F.conv2d(positive[:, :, 1:, 1:], module.conv_shifted.weight, stride=2)
    torch.testing.assert_close(module(x), module.bn(torch.cat([straight, shifted], dim=1)))


@pytest.mark.parametrize("kernel", [3, 5])
def test_separable_convolutions_layer_by_layer(kernel: int) -> None:
    x = torch.randn(2, 4, 9, 6)
    sep = build_operation(f"sep_conv_{kernel}x{kernel}", 4, 2, affine=False).eval()
    dil = build_operation(f"dil_conv_{kernel}x{kernel}", 4, 2, affine=False).eval()

    def convolve(y: torch.Tensor, layer: nn.Sequential, stride: int, dilation: int) -> torch.Tensor:
        """Both convolutions as a dense one: the outer product of pointwise and depthwise filters."""
        assert layer[1].weight.shape == (4, 1, kernel, kernel)
        dense = layer[2].weight * layer[1].weight.transpose(0, 1)
        padding = dilation * (kernel // 2)
        y = F.conv2d(y.relu(), dense, stride=stride, padding=padding, dilation=dilation)
        return y / (1 + layer[3].eps) ** 0.5

    torch.testing.assert_close(sep(x), convolve(convolve(x, sep[0], 2, 1), sep[1], 1, 1))
    torch.testing.assert_close(dil(x), convolve(x, dil, 2, 2))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", [*OPERATIONS.names(), "head"])
def test_no_convolution_of_the_image_has_a_bias(name: str, stride: int) -> None:
    operation = Head(6, affine=True) if name == "head" else build_operation(name, 6, stride, affine=True)
    assert all(layer.bias is None for layer in operation.modules() if isinstance(layer, nn.Conv2d))


@pytest.mark.parametrize("stride", [1, 2])
def test_pools_window_by_window(stride: int) -> None:
    x = torch.randn(2, 4, 5, 6) - 3  # negative, so that a counted border of zeros would show
    pools = [build_operation(f"{kind}_pool_3x3", 4, stride, affine=True)(x) for kind in ("max", "avg")]
    for i, row in enumerate(range(0, 5, stride)):
        for j, column in enumerate(range(0, 6, stride)):
            window = x[:, :, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].flatten(2)
            torch.testing.assert_close(pools[0][:, :, i, j], window.amax(2))
            torch.testing.assert_close(pools[1][:, :, i, j], window.mean(2))


def test_head_layer_by_layer() -> None:
    head, x = Head(5, affine=True).eval(), torch.randn(2, 3, 21, 14)
    positive = F.relu(head[1](F.conv2d(x, head[0].weight, stride=2, padding=1)))
    assert head[0].weight.shape == (5, 3, 3, 3)
    torch.testing.assert_close(head(x), F.max_pool2d(positive, 3, 2, 1))
    assert head(x).shape == (2, 5, 6, 4)


@pytest.mark.parametrize("stride", [1, 2])
def test_average_pool_where_torchs_own_is_wrong(stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By contiguous copies: the same values, gradient and layout."""
    x = torch.randn(2, 5, 7, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    seen: list[bool] = []
    pool = F.avg_pool2d

    def watched(x: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        seen.append(x.is_contiguous())
        return pool(x, *args, **options)

    monkeypatch.setattr(F, "avg_pool2d", watched)
    results = []
    for copied in (False, True):
        monkeypatch.setattr(average_pool, "needs_copy", lambda x, copied=copied: copied)
        y = AveragePool(stride)(x)
        assert y.is_contiguous(memory_format=torch.channels_last)
        (grad,) = torch.autograd.grad(y.square().sum(), x)
        by_op = average_pool.average_pool_backward(2 * y.detach(), x.detach(), stride)
        results.append((y.detach(), grad, by_op))
    assert seen == [False, True]
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
