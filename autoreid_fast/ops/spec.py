"""`OpSpec`: everything there is to know about one op, as data.

Registration, argument checks, the contract tests, `parity`, `bench`, `doctor` and the profiler all read it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from autoreid_fast.ops.arguments import FLOATING, Arguments
from autoreid_fast.ops.sampling import Draw


@dataclass(frozen=True)
class Autograd:
    """The derivative of an op: its backward pass is an op as well, and has no derivative of its own."""

    inputs: tuple[str, ...]
    """Names in the schema of the arguments that have a gradient."""
    setup_context: Callable[..., None]
    """As `torch.library.register_autograd` calls it: ``(ctx, inputs, output)``."""
    backward: Callable[..., Any]
    """``(ctx, *gradients of the outputs)`` -> gradients of all arguments; it calls ``op``."""
    op: "OpSpec"
    """The backward op."""


@dataclass(frozen=True)
class BadInput:
    """An invalid call that the argument table does not describe."""

    name: str
    change: Callable[[dict[str, Any]], dict[str, Any]]
    """Maps a valid sample to the arguments that make it invalid."""
    message: str
    """A regular expression that the error must match."""


@dataclass(frozen=True)
class OpSpec:
    """One op: its schema, its reference, its derivative, its arguments and its samples."""

    name: str
    """``torch.ops.<namespace>.<name>`` is the op."""
    schema: str
    """Its signature, as `torch.library.define` reads it."""
    reference: Callable[..., Any]
    """The op in plain PyTorch, for any device: the fallback, the oracle of the tests, what forward-mode AD
    and `torch.func` differentiate, and what FLOP counters count."""
    fake: Callable[..., Any]
    """Shapes, dtypes and strides of the outputs, for `torch.compile`."""
    autograd: Autograd | None = None
    """None: not differentiable."""
    arguments: Arguments | None = None
    """Argument table of the public function; None where there is none (backward ops, inner steps)."""
    sample: Callable[[Draw], dict[str, Any]] | None = None
    """Draws the arguments of one valid call of the public function, or of the op where there is none."""
    dtypes: tuple[torch.dtype, ...] = FLOATING
    """The dtypes that samples are drawn in."""
    bad_inputs: tuple[BadInput, ...] = ()
    family: tuple[str, ...] = ()
    """Words in the names of its kernels, for the profiler; empty: not shown."""
    triton: str | None = None
    """Module of the CUDA kernel, whose function has the name of the op; None: not in Triton."""
    benchmark: str | None = None
    """Case of ``benchmarks/`` that measures it."""
    namespace: str = "autoreid_fast"

    @property
    def qualified(self) -> str:
        """Name in the dispatcher, with the namespace."""
        return f"{self.namespace}::{self.name}"
