"""Fused operations of derived networks compared with the plain modules, alone and in a network."""

import copy
import types
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.prune import random_unstructured

from autoreid_fast import ops
from autoreid_fast.nas.cell import CellShape
from autoreid_fast.nas.derived_network import DerivedCell, DerivedNetwork
from autoreid_fast.nas.operations.fused import apply_all, build_fused
from autoreid_fast.nas.operations.registry import OPERATIONS, build_operation
from autoreid_fast.nas.published import GENOTYPES

FUSED = ("sep_conv_3x3", "dil_conv_3x3", "part_aware")
SIZES = [(8, 4), (9, 5), (7, 1), (4, 3)]
EPS = torch.finfo(torch.float32).eps

Results = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _native() -> None:
    pytest.importorskip("autoreid_fast._cpu", reason="no native library: pure-Python install")
    assert all(ops.runs_native(op, torch.empty(0)) for op in ("separable_conv", "part_attention"))


def randomized(module: nn.Module) -> nn.Module:
    """The module in float64, with random parameters and running statistics."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_()
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return module.double()


def results(module: nn.Module, call: Callable[[Tensor], Tensor], x: Tensor) -> Results:
    """Output, the gradients of x and of every parameter, and the buffers afterwards."""
    x = x.detach().requires_grad_()
    y = call(x)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y.backward(grad.to(y))
    values = {"y": y.detach(), "d x": x.grad}
    values |= {f"d {name}": parameter.grad for name, parameter in module.named_parameters()}
    values |= dict(module.named_buffers())
    assert all(value is not None for value in values.values())
    return values  # type: ignore[return-value]


def fused_results(module: nn.Module, x: Tensor) -> Results:
    module = copy.deepcopy(module).to(x.dtype)
    return results(module, module, x)


def plain_results(module: nn.Module, x: Tensor) -> Results:
    with ops.backend("reference"):
        return fused_results(module, x)


def compare(plain: Callable[[Tensor], Results], fused: Callable[[Tensor], Results], x: Tensor) -> None:
    """Compare results, each relative to its own scale.

    float64: equal to 1e-9. float32: the error, by the norm over all results, is at most twice that of the
    plain modules; single tensors vary too much in a deep network.
    """
    truth, double = plain(x), fused(x)
    reference, single = plain(x.float()), fused(x.float())
    assert truth.keys() == double.keys() == single.keys()
    errors, allowed = [], []
    for name, value in truth.items():
        exact, scale = value.double(), value.double().abs().max().clamp(min=1)
        torch.testing.assert_close(double[name].double() / scale, exact / scale, rtol=0, atol=1e-9, msg=name)
        errors.append((single[name].double() - exact).flatten() / scale)
        allowed.append((reference[name].double() - exact).flatten() / scale)
    error, bound = torch.cat(errors), torch.cat(allowed)
    assert error.norm() <= 2 * bound.norm() + EPS * len(error) ** 0.5
    assert error.abs().max() < 1e-4


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", FUSED)
def test_equals_the_plain_operation(name: str, stride: int, training: bool) -> None:
    plain = randomized(build_operation(name, 7, stride, affine=True)).train(training)
    fused = build_fused(name, 7, stride).double().train(training)
    fused.load_state_dict(plain.state_dict())
    assert list(fused.state_dict()) == list(plain.state_dict())
    assert type(fused) is not type(plain)
    for height, width in SIZES:
        x = torch.randn(3, 7, height, width, dtype=torch.float64) + 0.3
        compare(lambda x: fused_results(plain, x), lambda x: fused_results(fused, x), x)


@pytest.mark.parametrize("name", OPERATIONS.names())
def test_the_reference_backend_runs_the_plain_operation(name: str) -> None:
    plain = randomized(build_operation(name, 6, 2, affine=True))
    fused = build_fused(name, 6, 2).double()
    fused.load_state_dict(plain.state_dict())
    x = torch.randn(2, 6, 9, 4, dtype=torch.float64)
    expected = fused_results(plain, x)
    for key, value in plain_results(fused, x).items():
        assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("stride", [1, 2])
def test_operations_on_one_source_together(stride: int) -> None:
    """Results come in the order of the operations, with all gradients."""
    names = [*OPERATIONS.names(), "dil_conv_3x3", "sep_conv_3x3"]
    operations = nn.ModuleList(randomized(build_fused(name, 6, stride)) for name in names)

    def run(x: Tensor, together: bool) -> Results:
        copied = copy.deepcopy(operations).to(x.dtype)
        if together:
            return results(copied, lambda x: torch.stack(apply_all(copied, x)), x)
        with ops.backend("reference"):
            return results(copied, lambda x: torch.stack([operation(x) for operation in copied]), x)

    x = torch.randn(3, 6, 9, 5, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    compare(lambda x: run(x, False), lambda x: run(x, True), x)


def test_one_call_computes_the_separable_convolutions_of_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    filters = []
    run = ops.separable_conv

    def counted(x: Tensor, depthwise: Tensor, *rest: object) -> ops.SeparableConv:
        filters.append(len(depthwise))
        return run(x, depthwise, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("autoreid_fast.nas.operations.fused.separable_conv", counted)
    cell = DerivedCell(CellShape(6, 6, 6, False, False), GENOTYPES["autoreid_baseline"])
    cell(torch.randn(2, 6, 5, 4), torch.randn(2, 6, 5, 4))
    # input 0; input 1 and the second half of its separable convolution; node 0 and two halves; node 1, one
    assert filters == [1, 3, 1, 3, 1, 1, 1, 1]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["autoreid_baseline", "autoreid_base_reid", "autoreid_retrieval"])
def test_network_equals_the_network_of_plain_modules(name: str, training: bool) -> None:
    network = randomized(DerivedNetwork(GENOTYPES[name], channels=4, cells_per_block=(1, 1, 1, 2)))
    network.train(training)
    images = torch.randn(4, 3, 101, 35, dtype=torch.float64)
    compare(lambda x: plain_results(network, x), lambda x: fused_results(network, x), images)


def test_bfloat16_under_autocast() -> None:
    """Results are close to those of plain modules under autocast, and of the same dtypes."""
    network = DerivedNetwork(GENOTYPES["autoreid_retrieval"], channels=8, cells_per_block=(1, 1, 1, 1)).eval()
    images = torch.randn(3, 3, 97, 40)
    exact = network(images)
    measured = []
    for backend in ("native", "reference"):
        network.zero_grad()
        with ops.backend(backend), torch.autocast("cpu", torch.bfloat16):
            y = network(images)
        y.float().square().sum().backward()
        norm = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]).norm()
        measured.append((y.dtype, (y.detach().float() - exact).norm() / exact.norm(), norm))
    (dtype, error, norm), (plain_dtype, allowed, plain_norm) = measured
    assert dtype == plain_dtype
    assert error <= 2 * allowed + 1e-3
    torch.testing.assert_close(norm, plain_norm, rtol=0.05, atol=0)


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * nn.functional.linear(x, self.weight, self.bias)


CHANGES: dict[str, tuple[str, Callable[[nn.Module], object]]] = {
    "a bias": ("dil_conv_3x3", lambda op: setattr(op[2], "bias", nn.Parameter(torch.randn(6)))),
    "padding": ("dil_conv_3x3", lambda op: setattr(op[1], "padding_mode", "circular")),
    "another activation": ("dil_conv_3x3", lambda op: op.__setitem__(0, nn.GELU())),
    "a layer more": ("dil_conv_3x3", lambda op: op.insert(2, nn.Tanh())),
    "folded batch norms": (
        "sep_conv_3x3",
        lambda op: (op[0].__setitem__(2, nn.Conv2d(6, 6, 1)), op[0].__setitem__(3, nn.Identity())),
    ),
    "parametrised weights": (
        "sep_conv_3x3",
        lambda op: weight_norm(op[0].depthwise),
    ),
    "pruned weights": (
        "sep_conv_3x3",
        lambda op: random_unstructured(op[0].pointwise, "weight", 0.5),
    ),
    "a forward hook": ("sep_conv_3x3", lambda op: op[0].register_forward_hook(lambda *_: 3 * _[2])),
    "a pre-hook": ("part_aware", lambda op: op.key.register_forward_pre_hook(lambda _, x: (2 * x[0],))),
    "a forward of its own": (
        "part_aware",
        lambda op: setattr(op.query, "forward", types.MethodType(Doubled.forward, op.query)),
    ),
    "a subclass": ("part_aware", lambda op: setattr(op.key, "__class__", Doubled)),
    "a frozen batch norm": ("part_aware", lambda op: op.project.norm.eval()),
    "momentum": ("part_aware", lambda op: setattr(op.project.norm, "momentum", None)),
    "no running statistics": (
        "part_aware",
        lambda op: op.project.__setitem__(2, nn.BatchNorm1d(8, track_running_stats=False)),
    ),
    "another fusion": ("part_aware", lambda op: setattr(op.fuse, "conv", nn.Conv2d(8, 3, 1, bias=True))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_layers_run_themselves(change: str) -> None:
    """Whatever users do to a layer changes the result as it would change that of the plain operation."""
    name, apply = CHANGES[change]
    x = torch.randn(3, 6, 9, 5)

    def built() -> nn.Module:
        torch.manual_seed(5)
        operation = build_fused(name, 6, 2)
        apply(operation)
        torch.manual_seed(6)
        return operation

    alone, shared, plain = built(), built(), built()
    with ops.backend("reference"):
        expected = results(plain, plain, x)
    for found in (results(alone, alone, x), results(shared, lambda x: apply_all([shared], x)[0], x)):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-4, msg=key)


def test_global_hooks_see_every_layer() -> None:
    operation, seen = build_fused("sep_conv_3x3", 4, 1), []
    with_hook = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.append(type(module)))
    operation(torch.randn(2, 4, 5, 5))
    with_hook.remove()
    assert seen.count(nn.Conv2d) == 4


def test_unchanged_layers_are_fused_whatever_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies, other dtypes, replaced parameters and compiled modules keep the fast form."""
    operation = copy.deepcopy(build_fused("part_aware", 6, 1)).to(torch.bfloat16).float().eval()
    operation.key.weight = nn.Parameter(torch.eye(2))
    operation.project.norm.my_note = "seen"
    assert operation.built.describes(operation)
    assert operation.built.changed(operation.train()) is None
    x = torch.randn(2, 6, 5, 4)
    program = torch.export.export(operation.eval(), (x,)).module()
    assert any("part_attention" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program(x), operation(x))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_modules_in_half_precision(dtype: torch.dtype, training: bool) -> None:
    """Their running statistics are in half precision, too, and are updated."""
    operation = build_fused("part_aware", 6, 2).train(training)
    x = torch.randn(8, 6, 9, 5)
    half = copy.deepcopy(operation).to(dtype)
    torch.testing.assert_close(half(x.to(dtype)).float(), operation(x), rtol=0.1, atol=0.1)
    mean, exact = half.project.norm.running_mean, operation.project.norm.running_mean
    assert mean.dtype == dtype
    torch.testing.assert_close(mean.float(), exact, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("name", ["sep_conv_3x3", "dil_conv_3x3", "part_aware"])
def test_zero_images(name: str) -> None:
    operation = build_fused(name, 6, 2).eval()
    assert operation(torch.randn(0, 6, 9, 5)).shape == (0, 6, 5, 3)
    assert apply_all([operation], torch.randn(0, 6, 8, 4))[0].shape == (0, 6, 4, 2)


def test_a_cell_compiles_as_one_graph() -> None:
    cell = DerivedCell(CellShape(6, 6, 6, True, False), GENOTYPES["autoreid_retrieval"]).double().eval()
    inputs = torch.randn(2, 2, 6, 9, 5, dtype=torch.float64).unbind()
    called: list[str] = []

    def keep(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        called.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    compiled = torch.compile(cell, backend=keep, fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), cell(*inputs))
    assert any("part_attention" in name for name in called)
