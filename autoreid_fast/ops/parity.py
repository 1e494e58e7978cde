"""Parity: the distance of every op from its reference in float64, gradients included.

An error is relative: the largest |value - truth| over the largest |truth| of a tensor. A kernel passes if

    error(kernel) <= 2 error(reference in the kernel's dtype) + a few roundings,

both against the reference in float64. Integer and boolean outputs must equal those of the reference.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from autoreid_fast.ops import contract
from autoreid_fast.ops.spec import OpSpec

ROUNDINGS = 8
"""Roundings of the accumulation dtype that are allowed beside twice the reference's error."""


@dataclass(frozen=True)
class Call:
    """One call of an op."""

    spec: OpSpec
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Deviation:
    """The error of one output of an op, or of one gradient."""

    op: str
    output: str
    """Name of the output, or "gradient of `argument`"."""
    dtype: torch.dtype
    error: float
    reference_error: float
    bound: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the bound; NaN is not."""
        return self.error <= self.bound


def deviations(spec: OpSpec, sample: dict[str, Any]) -> list[Deviation]:
    """Run an op's public function, and compare every op it calls with its reference, forward and backward.

    Args:
        spec: the op.
        sample: arguments of its public function, as ``spec.sample`` draws them.

    Returns:
        one entry per floating output and gradient, and one per integer or boolean output.
    """
    return [each for call in calls_of(spec, sample) for each in _deviations_of(call)]


def calls_of(spec: OpSpec, sample: dict[str, Any]) -> list[Call]:
    """The ops that a call of the public function reaches, in order, each followed by its backward op."""
    with torch.no_grad(), _Recorder() as recorder:
        contract.public_function(spec)(**sample)
    calls = []
    for call in recorder.calls:
        calls.append(call)
        if call.spec.autograd is not None:
            with _Recorder() as backward:
                _results(contract.packet(call.spec), call)
            calls += backward.calls[1:]
    return calls


def relative_error(value: Tensor, truth: Tensor) -> float:
    """The largest |value - truth| over the largest |truth| (over 1 where that is 0).

    Infinite where the shapes differ or a value is not finite.
    """
    if value.shape != truth.shape:
        return float("inf")
    if truth.numel() == 0:
        return 0.0
    scale = truth.double().abs().max().item() or 1.0
    error = (value.to(truth.device).double() - truth.double()).abs().max().item() / scale
    return error if error < float("inf") else float("inf")


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fill new tensors with NaN (integers: their maximum) before ops write them."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills by torch's default
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


class _Recorder(TorchDispatchMode):
    """Records the calls of registered ops."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._specs = {spec.qualified: spec for spec in contract.specs()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        spec = self._specs.get(func._schema.name)
        if spec is not None:
            self.calls.append(Call(spec, tree_map(_detached, args)))
        return func(*args, **kwargs or {})


def _deviations_of(call: Call) -> Iterator[Deviation]:
    in_float64 = Call(call.spec, tree_map(_in_float64, call.arguments))
    ours, differentiable = _results(contract.packet(call.spec), call)
    reference, _ = _results(call.spec.reference, call, differentiable)
    truth, _ = _results(call.spec.reference, in_float64, differentiable)
    for name, value in ours.items():
        exact, bound = reference[name], 0.0
        if value.is_floating_point():
            exact, bound = truth[name], _roundings(value.dtype)
        reference_error = relative_error(reference[name], exact)
        error = relative_error(value, exact) if value.dtype == reference[name].dtype else float("inf")
        yield Deviation(
            call.spec.name, name, value.dtype, error, reference_error, bound + 2 * reference_error
        )


def _results(
    function: Callable[..., Any], call: Call, differentiable: list[int] | None = None
) -> tuple[dict[str, Tensor], list[int]]:
    """Outputs and gradients of the floating arguments, by name, and which outputs are differentiable.

    ``differentiable``: the outputs to take gradients of; None: all that have one and are not empty.
    """
    schema = contract.packet(call.spec).default._schema
    if call.spec.autograd is None:
        outputs = _outputs(function(*call.arguments), len(schema.returns))
        return _named(schema.returns, outputs), []
    arguments = tree_map(_leaf, call.arguments)
    outputs = _outputs(function(*arguments), len(schema.returns))
    if differentiable is None:
        differentiable = [index for index, one in enumerate(outputs) if one.requires_grad and one.numel()]
    roots = [outputs[index] for index in differentiable]
    leaves = {
        f"gradient of `{name}`": leaf
        for name, leaf in _named(schema.arguments, arguments).items()
        if isinstance(leaf, Tensor) and leaf.requires_grad
    }
    gradients = torch.autograd.grad(
        roots, list(leaves.values()), [_cotangent(root) for root in roots], allow_unused=True
    )
    results = _named(schema.returns, [output.detach() for output in outputs])
    results |= {name: grad for name, grad in zip(leaves, gradients, strict=True) if grad is not None}
    return results, differentiable


def _named(declared: Sequence[Any], values: Sequence[Any]) -> dict[str, Any]:
    """Values by the names that the schema declares; entries of lists by name and index."""
    named: dict[str, Any] = {}
    for index, (one, value) in enumerate(zip(declared, values, strict=False)):
        name = one.name or f"output {index}"
        if isinstance(value, list | tuple):
            named |= {f"{name}[{entry}]": tensor for entry, tensor in enumerate(value)}
        else:
            named[name] = value
    return named


def _outputs(output: Any, count: int) -> Sequence[Any]:
    return (output,) if count == 1 else output


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _leaf(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().requires_grad_()
    return value


def _in_float64(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.double()
    return torch.float64 if isinstance(value, torch.dtype) and value.is_floating_point else value


def _cotangent(output: Tensor) -> Tensor:
    """A gradient of an output, the same for each dtype: whole numbers from -2 to 2."""
    whole = torch.arange(output.numel(), device=output.device).remainder(5).sub(2)
    return (whole + 3 if output.ndim == 0 else whole).view(output.shape).to(output.dtype)


def _roundings(dtype: torch.dtype) -> float:
    accumulation = torch.float64 if dtype == torch.float64 else torch.float32
    return torch.finfo(dtype).eps + ROUNDINGS * torch.finfo(accumulation).eps
