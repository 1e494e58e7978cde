"""Forward-mode AD, `torch.func` and FLOP counters: right values, or an error that says what to do."""

import importlib
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.flop_counter import FlopCounterMode

from autoreid_fast import ops
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.cell import CellShape
from autoreid_fast.nas.space import search_space
from autoreid_fast.nas.supernet.edge_cell import SearchCell
from autoreid_fast.nas.supernet.source_cell import SourceCell
from autoreid_fast.ops import contract
from autoreid_fast.ops.flops import COUNTER, register_flops
from autoreid_fast.ops.parity import Call, calls_of
from autoreid_fast.ops.sampling import Draw
from autoreid_fast.ops.spec import OpSpec

DIFFERENTIABLE = {spec.name: spec for spec in ops.specs() if spec.autograd is not None}


def function_of(spec: OpSpec, seed: int) -> tuple[Any, list[Tensor]]:
    """The public function as one of its floating arguments, which are returned too; statistics stay fixed."""
    assert spec.sample is not None
    values = spec.sample(Draw(seed, torch.float64))
    if spec.name == "mixed_op_sum":
        values["statistics"] = None  # given ones would stay as they are where the candidates vary
    fixed = {name: values.pop(name) for name in ("running_mean", "running_var") if name in values}
    leaves, tree = tree_flatten(values)
    varied = [
        index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point()
    ]

    def function(*changed: Tensor) -> tuple[Tensor, ...]:
        given = list(leaves)
        for index, value in zip(varied, changed, strict=True):
            given[index] = value
        outputs = contract.public_function(spec)(**tree_unflatten(given, tree), **fixed)
        floating = [one for one in tree_flatten(outputs)[0] if isinstance(one, Tensor) and one.numel()]
        return tuple(one for one in floating if one.is_floating_point())[:1]

    return function, [leaves[index].clone().requires_grad_() for index in varied]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@pytest.mark.parametrize("seed", [11, 12])
def test_forward_mode_equals_difference_quotients(name: str, seed: int) -> None:
    function, inputs = function_of(DIFFERENTIABLE[name], seed)
    assert torch.autograd.gradcheck(
        function, inputs, check_forward_ad=True, check_backward_ad=False, fast_mode=True
    )


def direct_call(call: Call) -> tuple[Callable[[Tensor], Any], Tensor]:
    """A call of `torch.ops` as a function of its first floating argument, which is returned too."""
    leaves, tree = tree_flatten(call.arguments)
    index = next(i for i, one in enumerate(leaves) if isinstance(one, Tensor) and one.is_floating_point())

    def function(value: Tensor) -> Any:
        arguments = tree_unflatten([*leaves[:index], value, *leaves[index + 1 :]], tree)
        return contract.dispatcher_op(call.spec)(*arguments)

    return function, leaves[index].detach()


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_kernels_refuse_tangents(name: str) -> None:
    """The op and its backward op; outputs without a tangent would be wrong, and nobody would notice."""
    spec = DIFFERENTIABLE[name]
    assert spec.sample is not None and spec.autograd is not None
    calls = calls_of(spec, spec.sample(Draw(14)))
    assert {call.spec for call in calls} == {spec, spec.autograd.op}
    for call in calls:
        function, x = direct_call(call)
        refusal = rf"{call.spec.qualified}: the kernel has no forward-mode.*ops\.backend\('reference'\)"
        with forward_ad.dual_level():
            function(x)
            for primal in (x, x.clone().requires_grad_()):
                with pytest.raises(AutoReIDError, match=refusal):
                    function(forward_ad.make_dual(primal, torch.ones_like(x)))
        with pytest.raises(AutoReIDError, match=refusal):
            torch.func.jvp(function, (x,), (x,))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_torch_func_equals_autograd(name: str) -> None:
    function, inputs = function_of(DIFFERENTIABLE[name], 13)
    expected = torch.autograd.grad(function(*inputs)[0].square().sum(), inputs, allow_unused=True)
    found = torch.func.grad(
        lambda *inputs: function(*inputs)[0].square().sum(), argnums=tuple(range(len(inputs)))
    )(*(value.detach() for value in inputs))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other)


def test_vmap_equals_a_loop() -> None:
    batches = torch.randn(3, 2, 4, 6, 5).double()
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)

    def mixed(x: Tensor) -> Tensor:
        return ops.mixed_op_sum([x, x.square()], weights, [True, False])

    torch.testing.assert_close(torch.vmap(mixed)(batches), torch.stack([mixed(x) for x in batches]))
    gradient = torch.func.grad(lambda x: mixed(x).cos().sum())
    torch.testing.assert_close(torch.vmap(gradient)(batches), torch.stack([gradient(x) for x in batches]))


def test_vmap_of_a_gallery_op_says_what_to_do() -> None:
    with pytest.raises(AutoReIDError, match=r"nearest: `query` is a tensor of torch\.vmap.*use a loop"):
        torch.vmap(lambda x: ops.nearest(x, x, 1).indices)(torch.randn(2, 5, 3))


def test_running_statistics_of_functional_calls() -> None:
    """Updated in place, as by `nn.BatchNorm2d`."""
    mean, var = torch.zeros(1, 3), torch.ones(1, 3)
    x = torch.randn(4, 3, 5, 2)
    torch.func.grad(lambda x: ops.mixed_op_sum([x], torch.ones(1), [True], mean, var).square().sum())(x)
    norm = torch.nn.BatchNorm2d(3)
    norm(x)
    torch.testing.assert_close(mean[0], norm.running_mean)
    torch.testing.assert_close(var[0], norm.running_var)


def flops(function: Callable[[], Tensor], backward: bool = False) -> int:
    with FlopCounterMode(display=False) as counter:
        output = function()
        if backward:
            output.sum().backward()
    return int(counter.get_total_flops())


def test_flops_of_a_cell_are_those_of_its_plain_layers() -> None:
    """The fusion of a part-aware module reads each strip once, and not each pixel, and so counts less."""
    shape, space = CellShape(6, 6, 6, True, False), search_space("reid")
    x, weights = torch.randn(1, 6, 12, 8), torch.ones(14, len(space)) / 7
    by_source, by_edge = SourceCell(shape, space).eval(), SearchCell(shape, space).eval()
    fast, plain = flops(lambda: by_source(x, x, weights)), flops(lambda: by_edge(x, x, weights))
    assert 0.9 * plain < fast <= plain


def test_flops_of_an_op_forward_and_backward() -> None:
    """Those of plain layers, and of the depthwise outputs, which the backward pass computes again."""
    x = torch.randn(2, 3, 8, 6, requires_grad=True)
    depthwise, pointwise = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False), nn.Conv2d(3, 5, 1, bias=False)
    weights = depthwise.weight.squeeze(1)[None], pointwise.weight.flatten(1)[None]
    depthwise_flops = 2 * (2 * 8 * 6) * 3 * 9
    fused = flops(lambda: ops.separable_conv(x, *weights, [1]).z, backward=True)
    assert fused == flops(lambda: pointwise(depthwise(x.relu())), backward=True) + depthwise_flops


def test_formulas_are_registered_when_the_counter_is_imported_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, COUNTER)
    finders = list(sys.meta_path)
    register_flops(tuple(DIFFERENTIABLE.values()))
    registry = importlib.import_module(COUNTER).flop_registry
    assert sys.meta_path == finders
    assert all(contract.dispatcher_op(spec) in registry for spec in DIFFERENTIABLE.values())


class Called(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *arguments: Tensor) -> Tensor:
        return self.function(*arguments)


def test_exported_programs_have_a_free_batch() -> None:
    """Without an upper bound, which the limits of the ops' argument tables would give it."""
    depthwise, pointwise = torch.randn(1, 3, 3, 3), torch.randn(1, 4, 3)
    module = Called(lambda x: ops.separable_conv(x, depthwise, pointwise, [2]).z)
    batch, height = torch.export.Dim("batch"), torch.export.Dim("height")
    shapes = ({0: batch, 2: height},)
    program = torch.export.export(module, (torch.randn(3, 3, 6, 5),), dynamic_shapes=(shapes,)).module()
    x = torch.randn(5, 3, 9, 5)
    torch.testing.assert_close(program(x), module(x))


def test_exported_searches_have_a_free_gallery() -> None:
    module = Called(lambda query, gallery: ops.nearest(query, gallery, 3).indices)
    shapes = ({0: torch.export.Dim("queries")}, {0: torch.export.Dim("gallery", min=3)})
    examples = torch.randn(4, 6), torch.randn(9, 6)
    program = torch.export.export(module, examples, dynamic_shapes=(shapes,)).module()
    query, gallery = torch.randn(2, 6), torch.randn(17, 6)
    assert torch.equal(program(query, gallery), module(query, gallery))
