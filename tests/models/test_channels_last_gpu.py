"""Every torch operation that our networks run in channels last on CUDA, against float64 on the CPU.

torch's own kernels can be wrong there: the backward pass of a padded average pool is, in torch 2.11. The
first test keeps the list complete, and needs no GPU.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autoreid_fast import ops
from autoreid_fast.models.backbones.resnet import BasicBlock, Bottleneck, ResNet
from autoreid_fast.models.heads.embedding import EmbeddingHead
from autoreid_fast.models.heads.strips import StripHead
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.nas import GENOTYPES, DerivedNetwork
from autoreid_fast.nas.cell import CellShape
from autoreid_fast.nas.macro import Head
from autoreid_fast.nas.operations.layers import AveragePool, FactorizedReduce, ReLUConvBN
from autoreid_fast.nas.operations.registry import OPERATIONS, build_operation
from autoreid_fast.nas.space import search_space
from autoreid_fast.nas.supernet.edge_cell import SearchCell
from autoreid_fast.ops.stencil3x3 import stencil3x3

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


class Fn(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def separable(kernel: int, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(8, 8, kernel, stride, dilation * (kernel // 2), dilation, groups=8, bias=False)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv 1x1": lambda: nn.Conv2d(8, 6, 1, bias=False),
    "conv 3x3": lambda: nn.Conv2d(8, 6, 3, padding=1, bias=False),
    "conv 3x3 stride 2": lambda: nn.Conv2d(8, 6, 3, 2, 1, bias=False),
    "conv 7x7 stride 2": lambda: nn.Conv2d(8, 6, 7, 2, 3, bias=False),
    "depthwise 3x3": lambda: separable(3, 1, 1),
    "depthwise 3x3 stride 2": lambda: separable(3, 2, 1),
    "dilated 3x3": lambda: separable(3, 1, 2),
    "dilated 3x3 stride 2": lambda: separable(3, 2, 2),
    "depthwise 5x5": lambda: separable(5, 1, 1),
    "dilated 5x5 stride 2": lambda: separable(5, 2, 2),
    "max pool": lambda: nn.MaxPool2d(3, 1, 1),
    "max pool stride 2": lambda: nn.MaxPool2d(3, 2, 1),
    "average pool": lambda: AveragePool(1),
    "average pool stride 2": lambda: AveragePool(2),
    "batch norm": lambda: nn.BatchNorm2d(8),
    "batch norm without affine": lambda: nn.BatchNorm2d(8, affine=False),
    "relu": nn.ReLU,
    "pad": lambda: Fn(lambda x: nn.functional.pad(x, (0, 1, 0, 1))),
    "every other pixel": lambda: Fn(lambda x: x[:, :, 1::2, 1::2]),
    "concatenation": lambda: Fn(lambda x: torch.cat([x[:, :3], x[:, 3:] * 2], dim=1)),
    "spatial mean": lambda: Fn(lambda x: x.mean((2, 3))),
    "strip means": lambda: nn.AdaptiveAvgPool2d((4, 1)),
    "strip maxima": lambda: nn.MaxPool2d((3, 6)),
    "weighted sum": lambda: Fn(lambda x: 0.3 * x + x.square() * 0.7),
    "pools of the reference": lambda: Fn(lambda x: stencil3x3(x, stride=2, max_pool=True, avg_pool=True)[:2]),
}
BLOCKS: dict[str, Callable[[], nn.Module]] = {
    **{
        f"{name} stride {stride} affine {affine}": lambda n=name, s=stride, a=affine: build_operation(
            n, 8, s, a
        )
        for name in OPERATIONS.names()
        for stride in (1, 2)
        for affine in (True, False)
    },
    "preprocessing": lambda: ReLUConvBN(8, 6, True),
    "reduction": lambda: FactorizedReduce(8, 6, True),
    "head": lambda: nn.Sequential(nn.Conv2d(8, 3, 1), Head(4, True)),
    "basic block": lambda: BasicBlock(8, 8, 1),
    "basic block stride 2": lambda: BasicBlock(8, 16, 2),
    "bottleneck stride 2": lambda: Bottleneck(8, 4, 2),
    "embedding": lambda: EmbeddingHead(8, 5, 6, dropout=0.0),
    "pcb": lambda: StripHead(8, 5, (6,), False, 0.0),
    "hpm": lambda: StripHead(8, 5, (1, 2, 4), True, 0.0),
}
RANDOM = {"bernoulli_", "div_"}
"""Operations of dropout, whose mask differs between devices."""


class Recorder(TorchDispatchMode):
    """Names of the aten operations that run, backward passes included."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def outputs(module: nn.Module, x: Tensor) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(module(x)) if isinstance(leaf, Tensor)]


def operations_of(module: nn.Module, x: Tensor) -> set[str]:
    with Recorder() as recorder, ops.backend("reference"):
        sum(output.sum() for output in outputs(module, x.requires_grad_())).backward()  # type: ignore[union-attr]
    return recorder.names


def test_the_list_has_every_operation_of_our_networks() -> None:
    image = torch.randn(2, 3, 65, 33).contiguous(memory_format=torch.channels_last)
    x = torch.randn(3, 8, 9, 6).contiguous(memory_format=torch.channels_last)
    weights = torch.ones(14, len(search_space("reid")))
    cells = [
        SearchCell(CellShape(8, 8, 4, reduction, False), search_space("reid")) for reduction in (False, True)
    ]
    used = operations_of(ReIDNetwork(DerivedNetwork(GENOTYPES["darts_v2"], 3, (1, 1, 1, 1)), 5, 6), image)
    used |= operations_of(ReIDNetwork(ResNet(18, 2), 5, tail="hpm"), image)
    used |= set().union(*(operations_of(Fn(lambda x, cell=cell: cell(x, x, weights)), x) for cell in cells))
    listed = set().union(*(operations_of(build(), x) for build in (*LAYERS.values(), *BLOCKS.values())))
    assert used - listed - RANDOM == set()
    assert {"avg_pool2d_backward", "convolution_backward", "native_batch_norm_backward"} <= used


def error(found: Tensor, expected: Tensor) -> float:
    """Relative error; absolute where the exact value is 0, as the gradient of a bias before a batch norm."""
    difference = found.detach().double().cpu() - expected.detach()
    return float(difference.norm() / expected.detach().norm().clamp(min=1))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("height, width", [(9, 6), (16, 7)])
@pytest.mark.parametrize("name", [*LAYERS, *BLOCKS])
@pytest.mark.parametrize("gpu", [pytest.param(True, marks=gpu)])
def test_equals_float64_on_the_cpu(name: str, height: int, width: int, training: bool, gpu: bool) -> None:
    torch.manual_seed(3)
    build = LAYERS.get(name) or BLOCKS[name]
    module = build().train(training)
    exact = copy.deepcopy(module).double()
    module = module.cuda().to(memory_format=torch.channels_last)
    values = torch.randn(4, 8, height, width)
    x = values.cuda().contiguous(memory_format=torch.channels_last).requires_grad_()
    exact_x = values.double().requires_grad_()
    with ops.backend("reference"), torch.backends.cudnn.flags(allow_tf32=False):
        found, expected = outputs(module, x), outputs(exact, exact_x)
        weights = [torch.randn(output.shape) for output in found]
        for output, weight in zip(found, weights, strict=True):
            channels_last = torch.channels_last if output.ndim == 4 else torch.contiguous_format
            output.backward(weight.cuda().contiguous(memory_format=channels_last), retain_graph=True)
        for output, weight in zip(expected, weights, strict=True):
            output.backward(weight.double(), retain_graph=True)
    assert x.grad is not None and exact_x.grad is not None
    errors = {"d x": error(x.grad, exact_x.grad)}
    errors |= {f"y {i}": error(*pair) for i, pair in enumerate(zip(found, expected, strict=True))}
    for (key, parameter), other in zip(module.named_parameters(), exact.parameters(), strict=True):
        if parameter.grad is not None and other.grad is not None:
            errors[f"d {key}"] = error(parameter.grad, other.grad)
    assert max(errors.values()) < 1e-3, errors
