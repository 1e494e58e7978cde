"""`Case`: one op, the inputs it is measured on and what it is compared with; finding cases by name."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError, did_you_mean

FOLDER = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Variant:
    """One size of a case."""

    sizes: Mapping[str, int]
    """Its dimensions by name."""
    dtype: torch.dtype = torch.float32
    """Dtype of the floating inputs."""
    device: str = "cpu"
    large: str | None = None
    """Name of a size that takes seconds to minutes and gigabytes. Such variants run only on request, as
    ``<case>-<large>``, and each candidate out of process (`out_of_process.py`)."""
    tolerance: float | None = None
    """Replaces that of the case, where rounding alone exceeds it."""

    @property
    def dtype_name(self) -> str:
        """``float32`` and so on."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def available(self) -> bool:
        """Whether this machine has the device."""
        return self.device == "cpu" or torch.cuda.is_available()

    def __str__(self) -> str:
        sizes = " ".join(f"{name}={size}" for name, size in self.sizes.items())
        return f"{sizes} {self.dtype_name} {self.device}"


@dataclass(frozen=True)
class Work:
    """The least work of one step, whatever the implementation."""

    bytes: int
    """Bytes read plus written: each input and output once per pass over it that cannot be avoided."""
    flops: int
    """Floating-point operations; a multiply-add is two."""


@dataclass(frozen=True)
class Memory:
    """The memory that a candidate of a large variant needs beyond its inputs."""

    bytes: int
    arithmetic: str
    """How the bytes were computed."""


@dataclass(frozen=True)
class Case:
    """An op, its reference and what it is compared with.

    One step is a forward call and, if any input requires gradients, the gradients of all those inputs for
    fixed output gradients. ``ours``, ``reference`` and the peers are called with ``inputs(variant)`` and
    return the same tensors: one, or a tuple. A peer returns None in place of those that it does not compute.
    """

    name: str
    variants: tuple[Variant, ...]
    inputs: Callable[[Variant], tuple[Tensor, ...]]
    """Draws the inputs on the CPU from the global random state, which the harness seeds, with
    ``requires_grad`` set on those whose gradients are part of the step."""
    ours: Callable[..., Any]
    reference: Callable[..., Any]
    work: Callable[[Variant], Work]
    tolerance: float
    """Allowed error against the reference in float64 beyond twice the reference's own, relative to the
    largest element of each tensor."""
    peers: Mapping[str, Callable[[], Callable[..., Any]]] = field(default_factory=dict)
    """Package name -> function that imports it and returns the callable. ImportError: it is not installed."""
    bounds: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    """Name -> work that every implementation, or a family of them, must do; its result is ignored."""
    host: frozenset[str] = frozenset()
    """Peers and bounds that run on the CPU only. On CUDA these peers run in large variants only."""
    memory: Mapping[str, Callable[[Variant], Memory]] = field(default_factory=dict)
    """Candidate -> the memory it needs, for those that may not fit a machine."""
    kernel: str | None = None
    """Op whose backend the row names; None: the op whose `OpSpec` names this case as its benchmark."""
    compiles: bool = True
    """Whether ``torch.compile`` can compile the reference whole: not where shapes depend on values."""
    rivals: bool = True
    """Whether ``torch.compile`` and the peers are measured too, besides ours and the reference."""
    about: Callable[[Variant], str | None] = lambda variant: None
    """A remark on a variant's inputs."""


def case_names() -> tuple[str, ...]:
    """Names of all cases: every ``benchmarks/<name>.py``, which holds it as ``CASE``."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.py") if file.stem != "__init__"))


def find(names: Sequence[str] = (), own: Sequence[Case] = ()) -> list[Case]:
    """The cases of these names, among a user's own ones and those of `benchmarks/`.

    ``<case>-<large>`` is that case with only its large variants of this name. Without names: all own cases,
    or all of `benchmarks/` with their small variants if there are no own ones.

    Raises:
        AutoReIDError: no case has this name.
    """
    if own and not names:
        return list(own)
    cases: list[Case] = []
    for name in names or case_names():
        cases += [case for case in own if case.name == name] or [_find(name, own)]
    return cases


def _find(name: str, own: Sequence[Case]) -> Case:
    op, _, large = name.partition("-")
    if op in case_names():
        case = _load(op)
        variants = tuple(variant for variant in case.variants if variant.large == (large or None))
        if variants:
            return replace(case, variants=variants)
    known = list(dict.fromkeys([*(case.name for case in own), *case_names()]))
    for op in case_names():
        known += dict.fromkeys(f"{op}-{variant.large}" for variant in _load(op).variants if variant.large)
    hint = did_you_mean(name, known) or f"expected one of {', '.join(known)}"
    raise AutoReIDError(f"no benchmark case {name!r}; {hint}")


def _load(op: str) -> Case:
    case: Case = importlib.import_module(f"autoreid_fast.benchmarks.{op}").CASE
    return case
