"""What a benchmark case is, and the list of them."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError

CASES = ("batch_hard",)
"""Every case by name; ``case_<name>.py`` beside this file holds it as ``CASE``."""


@dataclass(frozen=True)
class Variant:
    """One size of a case: its named dimensions, the dtype of its floating inputs, and the device."""

    sizes: Mapping[str, int]
    dtype: torch.dtype = torch.float32
    device: str = "cpu"

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
class Case:
    """An op, what it is held to and what it is compared with.

    One step is a forward call and, where any input requires gradients, the gradients of all those inputs
    for fixed output gradients. ``ours``, ``twin`` and the peers take ``inputs(variant)`` and return the
    same tensors: one, or a tuple.
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


def find(names: Sequence[str] = ()) -> list[Case]:
    """The cases of these names, or all of them.

    Raises:
        AutoReIDError: a name is not among ``CASES``.
    """
    for name in names:
        if name not in CASES:
            raise AutoReIDError(f"no benchmark case {name!r}: choose from {', '.join(CASES)}")
    modules = (importlib.import_module(f".case_{name}", __package__) for name in names or CASES)
    return [module.CASE for module in modules]
