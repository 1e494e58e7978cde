"""What a benchmark case is, and the list of them."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError

CASES = (
    "batch_from_cache",
    "batch_hard",
    "mixed_op_sum",
    "part_attention",
    "stencil3x3",
    "separable_conv",
    "rank_gallery",
    "nearest",
    "k_reciprocal",
    "supernet_step",
)
"""Every case by name; ``benchmarks/<name>.py`` holds it as ``CASE``."""


@dataclass(frozen=True)
class Variant:
    """One size of a case: its named dimensions, the dtype of its floating inputs, and the device.

    A ``large`` one takes seconds to minutes and gigabytes: it is run only where it is asked for, as
    ``<case>-<large>``, and each candidate in processes of its own (``large.py``).
    """

    sizes: Mapping[str, int]
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    large: str | None = None
    tolerance: float | None = None
    """In place of the case's, where rounding alone goes beyond that."""

    @property
    def dtype_name(self) -> str:
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
    """The least that any implementation of one step must do.

    ``bytes``: bytes read plus written, each input and output counted once for every pass over it that
    cannot be saved; ``flops``: floating-point operations, a multiply-add as two.
    """

    bytes: int
    flops: int


@dataclass(frozen=True)
class Memory:
    """What a candidate of a large variant must hold at once beyond its inputs, and how that was reckoned."""

    bytes: int
    arithmetic: str


@dataclass(frozen=True)
class Case:
    """An op, what it is held to and what it is compared with.

    One step is a forward call and, where any input requires gradients, the gradients of all those inputs
    for fixed output gradients. ``ours``, ``twin`` and the peers take ``inputs(variant)`` and return the
    same tensors: one, or a tuple; a peer has None in place of those that it does not compute.
    """

    name: str
    variants: tuple[Variant, ...]
    inputs: Callable[[Variant], tuple[Tensor, ...]]
    """Makes the inputs on the CPU from the global random state (seeded by the harness), with
    ``requires_grad`` set on those whose gradient is part of the step."""
    ours: Callable[..., Any]
    twin: Callable[..., Any]
    work: Callable[[Variant], Work]
    tolerance: float
    """What the error against the float64 twin may have beyond twice the twin's own, relative to the
    largest element of each tensor."""
    peers: Mapping[str, Callable[[], Callable[..., Any]]] = field(default_factory=dict)
    """Package name -> a function that imports it and returns the callable; ImportError: not installed."""
    bounds: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    """Name -> work that is part of every implementation, or of a family of them, timed as it stands: what
    it returns is not looked at."""
    host: frozenset[str] = frozenset()
    """Peers and bounds that run on the CPU alone: beside a CUDA variant only peers, where it is large."""
    memory: Mapping[str, Callable[[Variant], Memory]] = field(default_factory=dict)
    """Candidate -> what it needs, for those that may not fit a machine."""
    kernel: str | None = None
    """The op whose backend the row names, where it is not called as the case is."""
    compiles: bool = True
    """Whether ``torch.compile`` can take the twin whole; not where shapes depend on values."""
    about: Callable[[Variant], str | None] = lambda variant: None
    """What there is to know about the inputs of a variant."""


def find(names: Sequence[str] = ()) -> list[Case]:
    """The cases of these names, or all of ``CASES`` without their large variants.

    ``<case>-<large>`` is that case with its variants of this ``large`` name alone.

    Raises:
        AutoReIDError: no case has this name.
    """
    return [_find(name) for name in names or CASES]


def _find(name: str) -> Case:
    op, _, large = name.partition("-")
    if op in CASES:
        case: Case = importlib.import_module(f"autoreid_fast.benchmarks.{op}").CASE
        variants = tuple(variant for variant in case.variants if variant.large == (large or None))
        if variants:
            return replace(case, variants=variants)
    known = list(CASES)
    for op in CASES:
        every = importlib.import_module(f"autoreid_fast.benchmarks.{op}").CASE.variants
        known += dict.fromkeys(f"{op}-{variant.large}" for variant in every if variant.large)
    raise AutoReIDError(f"no benchmark case {name!r}: choose from {', '.join(known)}")
