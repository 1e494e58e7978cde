"""Parity: the distance of every op from its reference in float64, gradients included.

A kernel passes if, for each output and gradient,

    error(kernel) <= 2 error(reference in the kernel's dtype) + one rounding of the output's dtype
                     + a few roundings of the accumulation dtype,

both errors against the reference in float64. Errors are the largest |value - truth|, relative to the largest
|truth| of the tensor. A gradient that is 0 but for cancellation (a bias before a batch norm) is measured
against the largest gradient of the call instead. Integer and boolean outputs must equal the reference's.
Shapes, dtypes and strides must be those that the op's `fake` predicts for torch.compile.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from autoreid_fast.errors import AutoReIDError, describe_error
from autoreid_fast.ops import contract
from autoreid_fast.ops.arguments import accumulation_dtype
from autoreid_fast.ops.sampling import Draw
from autoreid_fast.ops.spec import OpSpec

ROUNDINGS = {torch.float32: 8, torch.float64: 64}
"""Roundings of the accumulation dtype that a kernel may differ by beside twice the reference's error; more in
float64, where the reference itself is the truth and so has no error."""
CANCELLED = 1e-6
"""A gradient smaller than this, relative to the largest gradient of the call, is taken for rounding."""


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
    """Name of the output, "gradient of `argument`", or how the fake of an output differs from it."""
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
        one entry per floating output and gradient, one per integer or boolean output, and one per output
        whose fake has another shape, dtype or strides.

    Examples:
        >>> from autoreid_fast import ops
        >>> from autoreid_fast.ops.sampling import Draw
        >>> (spec,) = [spec for spec in ops.specs() if spec.name == "batch_hard"]
        >>> all(deviation.passed for deviation in deviations(spec, spec.sample(Draw(seed=0))))
        True
    """
    return [each for call in calls_of(spec, sample) for each in _deviations_of(call)]


def drawn(spec: OpSpec, draw: Draw) -> dict[str, Any]:
    """The arguments of one call of the public function, from ``spec.sample``.

    Raises:
        AutoReIDError: the spec's ``sample`` fails, or returns something else.
    """
    assert spec.sample is not None
    try:
        sample = spec.sample(draw)
    except Exception as error:  # a user's function may fail in any way
        raise AutoReIDError(f"OpSpec `{spec.qualified}`: `sample` raises {describe_error(error)}") from error
    if not isinstance(sample, dict):
        raise AutoReIDError(
            f"OpSpec `{spec.qualified}`: `sample` returns {type(sample).__name__}; expected a dictionary of "
            "arguments by name"
        )
    return sample


def first_call(spec: OpSpec, sample: dict[str, Any]) -> Call:
    """The first call of the op itself that its public function makes, even if the op then fails.

    Raises:
        AutoReIDError: the function fails before it calls the op, or does not call it.
    """
    problem = "does not call the op"
    with torch.no_grad(), _Recorder() as recorder:
        try:
            contract.public_function(spec)(**sample)
        except Exception as error:  # a user's function may fail in any way
            problem = f"raises {describe_error(error)}"
    for call in recorder.calls:
        if call.spec is spec:
            return call
    raise AutoReIDError(f"OpSpec `{spec.qualified}`: its public function {problem}")


def calls_of(spec: OpSpec, sample: dict[str, Any]) -> list[Call]:
    """The ops that a call of the public function reaches, in order, each followed by its backward op."""
    with torch.no_grad(), _Recorder() as recorder:
        contract.public_function(spec)(**sample)
    calls = []
    for call in recorder.calls:
        calls.append(call)
        if call.spec.autograd is not None:
            with _Recorder() as backward:
                _results(contract.dispatcher_op(call.spec), call)
            calls += backward.calls[1:]
    return calls


def with_leaves(call: Call) -> tuple[Any, ...]:
    """The arguments, with those that have a gradient as fresh leaves that require one."""
    if call.spec.autograd is None:
        return call.arguments
    schema = contract.dispatcher_op(call.spec).default._schema
    return tuple(
        tree_map(_leaf, argument) if declared.name in call.spec.autograd.inputs else argument
        for declared, argument in zip(schema.arguments, call.arguments, strict=True)
    )


def absolute_error(value: Tensor, truth: Tensor) -> float:
    """The largest |value - truth|; infinite if the shapes differ or a value is not finite."""
    if value.shape != truth.shape:
        return float("inf")
    if truth.numel() == 0:
        return 0.0
    error = (value.to(truth.device).double() - truth.double()).abs().max().item()
    return error if error < float("inf") else float("inf")


def relative_error(value: Tensor, truth: Tensor) -> float:
    """`absolute_error` over the largest |truth| (over 1 where that is 0)."""
    return absolute_error(value, truth) / (_largest(truth) or 1.0)


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
    ours, differentiable = _results(contract.dispatcher_op(call.spec), call)
    reference, _ = _results(call.spec.reference, call, differentiable)
    truth, _ = _results(call.spec.reference, in_float64, differentiable)
    gradients = [name for name in reference if name.startswith("gradient") or _is_backward(call.spec)]
    largest = max((_largest(truth[name]) for name in gradients), default=0.0)
    for name, expected in reference.items():
        value = ours.get(name)
        if value is None or value.dtype != expected.dtype:
            yield Deviation(call.spec.name, name, expected.dtype, float("inf"), 0.0, 0.0)
        elif value.is_floating_point():
            across = largest if name in gradients else 0.0
            yield _floating_deviation(call.spec.name, name, value, expected, truth[name], across)
        else:
            error = absolute_error(value, expected)
            yield Deviation(call.spec.name, name, value.dtype, error, 0.0, 0.0)
    yield from _fake_deviations(call, ours)


def _fake_deviations(call: Call, ours: dict[str, Tensor]) -> Iterator[Deviation]:
    """The outputs whose fake has not their shape, dtype or strides."""
    op = contract.dispatcher_op(call.spec)
    returns = op.default._schema.returns
    with torch.no_grad(), FakeTensorMode(shape_env=ShapeEnv()) as mode:
        arguments = tree_map(lambda value: _fake(mode, value), call.arguments)
        try:
            outputs = _outputs(op(*arguments), len(returns))
        except Exception as error:  # a user's fake may fail in any way
            yield _wrong_fake(call.spec, f"fake raises {describe_error(error)}")
            return
    for name, fake in _named(returns, outputs).items():
        difference = _difference(fake, ours.get(name))
        if difference:
            yield _wrong_fake(call.spec, f"fake of {name}: {difference}")


def _wrong_fake(spec: OpSpec, problem: str) -> Deviation:
    return Deviation(spec.name, problem, torch.float32, float("inf"), 0.0, 0.0)


def _fake(mode: FakeTensorMode, value: Any) -> Any:
    return mode.from_tensor(value, static_shapes=True) if isinstance(value, Tensor) else value


def _difference(fake: Any, value: Any) -> str:
    """How a fake output differs from the op's; sizes that depend on values may be any."""
    if not isinstance(fake, Tensor) or not isinstance(value, Tensor):
        same = type(fake) is type(value)
        return "" if same else f"{type(fake).__name__}, the op returns {type(value).__name__}"
    if fake.dtype != value.dtype:
        return f"{fake.dtype}, the op returns {value.dtype}"
    if fake.ndim != value.ndim or not all(map(_fits, fake.shape, value.shape)):
        return f"shape {tuple(fake.shape)}, the op returns {tuple(value.shape)}"
    wide = [axis for axis, size in enumerate(value.shape) if size > 1 and value.numel()]
    if not all(_fits(fake.stride(axis), value.stride(axis)) for axis in wide):
        return f"strides {fake.stride()}, the op returns {value.stride()}"
    return ""


def _fits(fake: int | torch.SymInt, size: int) -> bool:
    return isinstance(fake, torch.SymInt) or fake == size


def _floating_deviation(
    op: str, name: str, value: Tensor, reference: Tensor, truth: Tensor, across: float
) -> Deviation:
    """``across``: the largest gradient of the call, for gradients; 0 for outputs."""
    largest = _largest(truth)
    scale = (largest if largest > CANCELLED * across else across) or 1.0
    reference_error = absolute_error(reference, truth) / scale
    accumulation = accumulation_dtype(value)
    rounding = torch.finfo(value.dtype).eps * largest / scale
    bound = 2 * reference_error + rounding + ROUNDINGS[accumulation] * torch.finfo(accumulation).eps
    return Deviation(op, name, value.dtype, absolute_error(value, truth) / scale, reference_error, bound)


def _is_backward(spec: OpSpec) -> bool:
    return any(other.autograd is not None and other.autograd.op is spec for other in contract.specs())


def _results(
    function: Callable[..., Any], call: Call, differentiable: list[int] | None = None
) -> tuple[dict[str, Tensor], list[int]]:
    """Outputs and gradients of the floating arguments, by name, and which outputs are differentiable.

    ``differentiable``: the outputs to take gradients of; None: all that have one and are not empty.
    """
    schema = contract.dispatcher_op(call.spec).default._schema
    if call.spec.autograd is None:
        outputs = _outputs(function(*call.arguments), len(schema.returns))
        return _named(schema.returns, outputs), []
    arguments = with_leaves(call)
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
    return value.detach().requires_grad_() if isinstance(value, Tensor) else value


def _in_float64(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.double()
    return torch.float64 if isinstance(value, torch.dtype) and value.is_floating_point else value


def _cotangent(output: Tensor) -> Tensor:
    """A gradient of an output, the same for each dtype: whole numbers from -2 to 2."""
    whole = torch.arange(output.numel(), device=output.device).remainder(5).sub(2)
    return (whole + 3 if output.ndim == 0 else whole).view(output.shape).to(output.dtype)


def _largest(x: Tensor) -> float:
    return x.double().abs().max().item() if x.numel() else 0.0
