"""The contract every op keeps: one schema, the reference twin under it, a fake, and the backend switch.

`define` gives the dispatcher the schema and lays the twin as its CompositeExplicitAutograd kernel. A
native library (`library.py`) later lays CPU and CUDA kernels over the twin, so the fallback is the
dispatcher's own: no op asks at run time what is loaded.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast, get_args

import torch

from autoreid_fast.errors import AutoReIDError

NAMESPACE = "autoreid_fast"
ENVIRONMENT = "AUTOREID_FAST_BACKEND"

Backend = Literal["native", "reference"]


def _parse(name: str) -> Backend:
    if name in get_args(Backend):
        return cast(Backend, name)
    raise AutoReIDError(f"backend {name!r} is neither 'native' nor 'reference' ({ENVIRONMENT}, ops.backend)")


_backend: Backend = _parse(os.environ.get(ENVIRONMENT) or "native")
_defined: list[str] = []


def define(name: str, schema: str, twin: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Define `autoreid_fast::name` with the reference twin as its kernel on every device.

    Args:
        name: the op's name; `torch.ops.autoreid_fast.<name>` is the op afterwards.
        schema: its signature, as `torch.library.define` reads it.
        twin: the op in plain PyTorch, on any device.
        fake: shapes, dtypes and strides of the outputs for `torch.compile`.
    """
    qualified = f"{NAMESPACE}::{name}"
    torch.library.define(qualified, schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.impl(qualified, "default", twin)
    torch.library.register_fake(qualified, fake)
    _defined.append(name)


def defined() -> tuple[str, ...]:
    """The names of all ops, in the order of their definition."""
    return tuple(_defined)


def reference_forced() -> bool:
    """Whether `AUTOREID_FAST_BACKEND` or `backend` asks for the reference twins."""
    return _backend == "reference"


@contextmanager
def backend(name: Backend) -> Iterator[None]:
    """Run the ops called in this block by `"reference"` twins or (the default) by `"native"` kernels.

    Process-wide, not per thread. The twins are differentiated by autograd, so a block's backward pass
    keeps to the backend of its forward pass.

    Raises:
        AutoReIDError: another name.
    """
    global _backend
    before, _backend = _backend, _parse(name)
    try:
        yield
    finally:
        _backend = before
