"""The steps of a case, and their distance from the float64 twin."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .case import Case, Variant
from .peers import INSTALL
from .results import Parity

Step = Callable[[], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Prepared:
    """A variant made ready: what ran and is near enough to the truth has a step, the rest has a note."""

    names: tuple[str, ...]
    steps: dict[str, Step]
    parities: dict[str, Parity]
    notes: dict[str, str]
    backward: bool


def candidates(case: Case, variant: Variant) -> tuple[str, ...]:
    """Names of what a row compares, in the order of its columns."""
    beside = [
        name for name in case.peers if variant.device == "cpu" or variant.large or name not in case.host
    ]
    return ("ours", "twin", *(["compiled"] if case.compiles else []), *beside)


def bounds(case: Case, variant: Variant) -> tuple[str, ...]:
    """Names of the bounds that stand below them."""
    return tuple(name for name in case.bounds if variant.device == "cpu" or name not in case.host)


def tolerance(case: Case, variant: Variant) -> float:
    """What may be off beyond the twin's own error."""
    return case.tolerance if variant.tolerance is None else variant.tolerance


@contextmanager
def without_tf32() -> Iterator[None]:
    """Convolutions of float32 in float32: by default CUDA has them in TF32, a thousand times as far off."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@without_tf32()
def prepare(case: Case, variant: Variant) -> Prepared:
    """Make the inputs, run every candidate once, and compare each with the twin in float64.

    A candidate that fails to import, compile or run, or whose error is beyond what is allowed, has no step.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = case.inputs(variant)
    inputs = tuple(_leaf(tensor, variant.device) for tensor in drawn)
    doubles = tuple(_leaf(tensor, variant.device, double=True) for tensor in drawn)
    truth = _step(case.twin, doubles, variant.dtype)()

    torch.compiler.reset()
    compiled = torch.compile(case.twin, fullgraph=True, dynamic=False)
    sources: dict[str, Callable[[], Callable[..., Any]]] = {
        "twin": lambda: case.twin,  # first: what the others may have of error depends on it
        "ours": lambda: case.ours,
        **({"compiled": lambda: compiled} if case.compiles else {}),
        **{name: case.peers[name] for name in candidates(case, variant) if name in case.peers},
    }
    steps: dict[str, Step] = {}
    parities: dict[str, Parity] = {}
    notes: dict[str, str] = {}
    allowed = tolerance(case, variant)
    for name, source in sources.items():
        try:
            step = _step(source(), inputs, variant.dtype)
            error = relative_error(step(), truth)
        except Exception as problem:  # a peer or the compiler may fail in any way; the row goes on without it
            notes[name] = reason(name, problem)
            continue
        if name == "twin" and error is not None:
            allowed += 2 * error
        parities[name] = Parity(error=error, allowed=allowed)
        if parities[name].passed:
            steps[name] = step
        else:
            notes[name] = no_parity(parities[name])
    below = {name: case.bounds[name] for name in bounds(case, variant)}
    steps |= {name: _step(bound, inputs, variant.dtype) for name, bound in below.items()}
    backward = any(tensor.requires_grad for tensor in inputs)
    return Prepared(candidates(case, variant), steps, parities, notes, backward)


def relative_error(values: tuple[Tensor | None, ...], truth: tuple[Tensor, ...]) -> float | None:
    """The largest |value - truth| over the largest |truth| of the same tensor (over 1 where that is 0).

    What a peer does not compute is None, and not compared. None where a number is not finite, the shapes
    differ, or there is nothing to compare.
    """
    if len(values) != len(truth) or all(value is None for value in values):
        return None
    largest = 0.0
    for value, true in zip(values, truth, strict=True):
        if value is None:
            continue
        if value.shape != true.shape:
            return None
        if true.numel() == 0:
            continue
        scale = true.double().abs().max().item() or 1.0
        error = (value.to(true.device).double() - true.double()).abs().max().item() / scale
        if not error < float("inf"):
            return None
        largest = max(largest, error)
    return largest


def _leaf(tensor: Tensor, device: str, double: bool = False) -> Tensor:
    moved = tensor.detach().to(device)
    if double and moved.is_floating_point():
        moved = moved.double()
    return moved.requires_grad_(tensor.requires_grad)


def _step(function: Callable[..., Any], inputs: tuple[Tensor, ...], dtype: torch.dtype) -> Step:
    """One step: outputs, and gradients of the inputs that require them for fixed output gradients.

    Output gradients are standard normal, rounded to ``dtype`` so that all precisions get the same; 1 for
    a scalar. They are made on the first call, which no one times.
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
    """Why this candidate did not run, in a line."""
    if isinstance(problem, ImportError):
        return f"not installed ({problem}): {INSTALL.get(name, 'pip install autoreid_fast[bench]')}"
    lines = str(problem).strip().splitlines() or [""]
    return f"{type(problem).__name__}: {lines[0]}"[:160]


def no_parity(parity: Parity) -> str:
    """How far a candidate that failed is off."""
    error = "not finite" if parity.error is None else f"{parity.error:.1e}"
    return f"no parity: error {error} > {parity.allowed:.1e}"
