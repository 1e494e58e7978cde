"""The steps of a case, and their errors against the reference in float64."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError, describe_error
from autoreid_fast.ops import parity

from .case import Case, Variant
from .results import Parity
from .support.peers import INSTALL

Step = Callable[[], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Prepared:
    """A variant ready to be timed: a candidate with parity has a step, any other has a note."""

    names: tuple[str, ...]
    steps: dict[str, Step]
    parities: dict[str, Parity]
    notes: dict[str, str]
    backward: bool


def candidates(case: Case, variant: Variant) -> tuple[str, ...]:
    """Names of the candidates that a row compares, in the order of its columns."""
    if not case.rivals:
        return ("ours", "reference")
    peers = [name for name in case.peers if variant.device == "cpu" or variant.large or name not in case.host]
    return ("ours", "reference", *(["compiled"] if case.compiles else []), *peers)


def bounds(case: Case, variant: Variant) -> tuple[str, ...]:
    """Names of the bounds of a row."""
    return tuple(name for name in case.bounds if variant.device == "cpu" or name not in case.host)


def tolerance(case: Case, variant: Variant) -> float:
    """Allowed error beyond twice the reference's own."""
    return case.tolerance if variant.tolerance is None else variant.tolerance


@contextmanager
def without_tf32() -> Iterator[None]:
    """Run float32 convolutions in float32: cuDNN's default is TF32, with a thousand times the error."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@without_tf32()
def prepare(case: Case, variant: Variant) -> Prepared:
    """Draw the inputs, run every candidate once, and compare each with the reference in float64.

    A candidate that fails to import, compile or run, or whose error exceeds the bound, has no step.

    Raises:
        AutoReIDError: the reference fails in float64.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = case.inputs(variant)
    inputs = tuple(_leaf(tensor, variant.device) for tensor in drawn)
    doubles = tuple(_leaf(tensor, variant.device, double=True) for tensor in drawn)
    try:
        truth = _step(case.reference, doubles, variant.dtype)()
    except Exception as problem:  # a user's reference may fail in any way
        raise AutoReIDError(
            f"bench: the reference of {case.name} raises {describe_error(problem)} in float64"
        ) from problem

    steps: dict[str, Step] = {}
    parities: dict[str, Parity] = {}
    notes: dict[str, str] = {}
    allowed = tolerance(case, variant)
    dtypes: list[torch.dtype] = []
    for name, load in _loaders(case, variant).items():
        try:
            step = _step(load(), inputs, variant.dtype)
            outputs = step()
        except Exception as problem:  # peers and the compiler may fail in any way
            notes[name] = reason(name, problem)
            continue
        error = relative_error(outputs, truth)
        if name == "reference":
            dtypes = [output.dtype for output in outputs]
            allowed += 2 * (error or 0.0)
        elif name == "ours" and dtypes and [output.dtype for output in outputs] != dtypes:
            error = None
        parities[name] = Parity(error=error, allowed=allowed)
        if parities[name].passed:
            steps[name] = step
        else:
            notes[name] = no_parity(parities[name])
    for name in bounds(case, variant):
        steps[name] = _step(case.bounds[name], inputs, variant.dtype)
    backward = any(tensor.requires_grad for tensor in inputs)
    return Prepared(candidates(case, variant), steps, parities, notes, backward)


def _loaders(case: Case, variant: Variant) -> dict[str, Callable[[], Callable[..., Any]]]:
    """Functions that import or compile each candidate; the reference first, whose error sets the bound."""
    torch.compiler.reset()
    compiled = torch.compile(case.reference, fullgraph=True, dynamic=False)
    return {
        "reference": lambda: case.reference,
        "ours": lambda: case.ours,
        **({"compiled": lambda: compiled} if "compiled" in candidates(case, variant) else {}),
        **{name: case.peers[name] for name in candidates(case, variant) if name in case.peers},
    }


def relative_error(values: tuple[Tensor | None, ...], truth: tuple[Tensor, ...]) -> float | None:
    """The largest relative error of the tensors, each by `ops.parity.relative_error`.

    Returns:
        None where a value is not finite, shapes or the number of tensors differ, or all values are None.
        Single values of None, which a peer does not compute, are not compared.
    """
    if len(values) != len(truth) or all(value is None for value in values):
        return None
    errors = [
        parity.relative_error(value, true)
        for value, true in zip(values, truth, strict=True)
        if value is not None
    ]
    return max(errors) if max(errors) < float("inf") else None


def _leaf(tensor: Tensor, device: str, double: bool = False) -> Tensor:
    moved = tensor.detach().to(device)
    if double and moved.is_floating_point():
        moved = moved.double()
    return moved.requires_grad_(tensor.requires_grad)


def _step(function: Callable[..., Any], inputs: tuple[Tensor, ...], dtype: torch.dtype) -> Step:
    """One step: outputs, and gradients of the inputs that require them for fixed output gradients.

    Output gradients are standard normal, rounded to ``dtype`` so that they are the same in all precisions; 1
    for a scalar. The first call, which is not timed, draws them.
    """
    leaves = [tensor for tensor in inputs if tensor.requires_grad]
    cotangents: list[Tensor] = []

    def step() -> tuple[Tensor, ...]:
        result = function(*inputs)
        outputs = (result,) if isinstance(result, Tensor) else tuple(result)
        if not leaves:
            return outputs
        roots = [output for output in outputs if output.requires_grad]
        if not cotangents:
            generator = torch.Generator().manual_seed(1)
            cotangents.extend(_cotangent(root, dtype, generator) for root in roots)
        gradients = torch.autograd.grad(roots, leaves, cotangents)
        return (*(output.detach() for output in outputs), *gradients)

    return step


def _cotangent(root: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    if root.dim() == 0:
        return torch.ones_like(root)
    return torch.randn(root.shape, dtype=torch.float64, generator=generator).to(dtype).to(root)


def reason(name: str, problem: Exception) -> str:
    """One line on why a candidate did not run."""
    if isinstance(problem, ImportError):
        return f"not installed ({problem}): {INSTALL.get(name, 'pip install autoreid_fast[bench]')}"
    lines = str(problem).strip().splitlines() or [""]
    return f"{type(problem).__name__}: {lines[0]}"[:160]


def no_parity(parity: Parity) -> str:
    """One line on the error of a candidate without parity."""
    error = "not finite, or of another shape or dtype" if parity.error is None else f"{parity.error:.1e}"
    return f"no parity: error {error} > {parity.allowed:.1e}"
