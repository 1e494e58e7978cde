"""The contract of every op, from its `OpSpec`: parity, every element written, opcheck, one graph."""

from collections import Counter
from collections.abc import Callable
from inspect import isfunction
from typing import Any, get_args

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch.utils._pytree import tree_flatten, tree_map

from autoreid_fast import ops
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops import contract
from autoreid_fast.ops.parity import calls_of, deviations, poisoned_memory, with_leaves
from autoreid_fast.ops.sampling import LAYOUTS, Draw
from autoreid_fast.ops.spec import OpSpec

SPECS = {spec.name: spec for spec in ops.specs() if spec.sample is not None}
EAGER = dict.fromkeys(
    ("k_reciprocal_invert", "k_reciprocal_block"), "the number of entries of its rows depends on the values"
)
"""Functions that torch.compile cannot make one graph of, and why."""


def sample(spec: OpSpec, draw: Draw) -> dict[str, Any]:
    assert spec.sample is not None
    return spec.sample(draw)


@pytest.mark.parametrize("name", SPECS)
def test_parity_and_every_element_is_written(name: str, backend: str) -> None:
    """Every op that the function calls, against float64; memory from torch holds NaN before it is written."""
    spec = SPECS[name]
    assert torch.utils.deterministic.fill_uninitialized_memory
    for dtype in spec.dtypes:
        for seed in range(8):
            with poisoned_memory():
                found = deviations(spec, sample(spec, Draw(seed, dtype)))
            assert found or backend == "reference", "the function calls no op"
            assert not [each for each in found if not each.passed], seed


@pytest.mark.parametrize("name", SPECS)
def test_opcheck(name: str) -> None:
    """All of opcheck on contiguous arguments; schema and fake outputs, strides included, on other layouts."""
    spec = SPECS[name]
    quick = ("test_schema", "test_autograd_registration", "test_faketensor")
    for layout in LAYOUTS:
        checked = set()
        for call in calls_of(
            spec, sample(spec, Draw(1, spec.dtypes[-1 if layout == "strided" else 0], layout=layout))
        ):
            if call.spec.name not in checked:
                arguments = with_leaves(call)
                utils = "ALL" if layout == "contiguous" and name not in EAGER else quick
                torch.library.opcheck(contract.dispatcher_op(call.spec).default, arguments, test_utils=utils)
            checked.add(call.spec.name)


@pytest.mark.parametrize("name", [name for name in SPECS if name not in EAGER])
def test_the_default_dtype_does_not_matter(name: str) -> None:
    spec = SPECS[name]
    first, second = (sample(spec, Draw(4, spec.dtypes[0])) for _ in range(2))
    for backend in get_args(contract.Backend):
        with ops.backend(backend):
            expected = outputs_and_gradients(contract.public_function(spec), spec, first)
            torch.set_default_dtype(torch.float64)
            try:
                found = outputs_and_gradients(contract.public_function(spec), spec, second)
            finally:
                torch.set_default_dtype(torch.float32)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", [name for name in SPECS if name not in EAGER])
def test_compiles_to_one_graph(name: str) -> None:
    """Forward and backward, with each op called as often as it is without the compiler."""
    spec = SPECS[name]
    called: list[str] = []

    def keep(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., object]:
        called.extend(str(node.target) for node in graph.graph.nodes)
        return make_boxed_func(graph.forward)

    eager = sample(spec, Draw(2))
    compiled = sample(spec, Draw(2))
    function = torch.compile(
        contract.public_function(spec), fullgraph=True, backend=aot_autograd(fw_compiler=keep)
    )
    expected = outputs_and_gradients(contract.public_function(spec), spec, eager)
    torch.testing.assert_close(
        outputs_and_gradients(function, spec, compiled), expected, rtol=1e-5, atol=1e-5
    )
    names = [
        f"{call.spec.namespace}.{call.spec.name}.default" for call in calls_of(spec, sample(spec, Draw(2)))
    ]
    assert {name: called.count(name) for name in names} == Counter(names)


@pytest.mark.parametrize("name", [name for name, spec in SPECS.items() if spec.autograd is not None])
def test_backward_ops_are_differentiable_once(name: str) -> None:
    spec = SPECS[name]
    for call in calls_of(spec, sample(spec, Draw(3))):
        if call.spec is spec:
            arguments = with_leaves(call)
            outputs = tree_flatten(contract.dispatcher_op(spec)(*arguments))[0]
            roots = [output for output in outputs if output.requires_grad]
            leaves = [
                one for one in tree_flatten(arguments)[0] if isinstance(one, Tensor) and one.requires_grad
            ]
            gradients = torch.autograd.grad(
                roots, leaves, [torch.ones_like(root) for root in roots], create_graph=True, allow_unused=True
            )
            with pytest.raises(AutoReIDError, match=f"{name}: .* differentiable once"):
                sum(each.sum() for each in gradients if each is not None).backward()  # type: ignore[union-attr]
            return
    pytest.fail("the function does not call its op")


def test_every_public_function_has_a_table() -> None:
    functions = {name for name in ops.__all__ if isfunction(getattr(ops, name))}
    tables = {spec.arguments.function for spec in ops.specs() if spec.arguments is not None}
    assert (
        functions - {"backend", "load_specs", "runs_native", "specs", "status", "sync_batch_norm"} <= tables
    )


def leaf(value: Any) -> Any:
    return value.detach().requires_grad_() if is_floating(value) else value


def is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def outputs_and_gradients(function: Callable[..., Any], spec: OpSpec, values: dict[str, Any]) -> list[Tensor]:
    """Outputs, gradients of the floating arguments, and arguments that the function has updated."""
    assert spec.arguments is not None
    updated = {one.name for one in spec.arguments.arguments if getattr(one, "updated", False)}
    if spec.autograd is not None:
        values = {key: value if key in updated else tree_map(leaf, value) for key, value in values.items()}
    leaves = [one for one in tree_flatten(values)[0] if is_floating(one) and one.requires_grad]
    outputs = [one for one in tree_flatten(function(**values))[0] if one is not None]
    roots = [output for output in outputs if output.requires_grad]
    gradients: tuple[Tensor | None, ...] = ()
    if roots:
        ones = [torch.ones_like(root) for root in roots]
        gradients = torch.autograd.grad(roots, leaves, ones, allow_unused=True)
    kept = [values[name] for name in sorted(updated) if values[name] is not None]
    return [*(one.detach() for one in outputs), *(one for one in gradients if one is not None), *kept]
