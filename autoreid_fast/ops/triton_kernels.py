"""Laying Triton kernels over the reference twins on CUDA, where triton is installed.

Triton is imported by the first call on a CUDA tensor: a process that makes none does not pay for it.
"""

import importlib
import importlib.util
from typing import Any

import torch

from autoreid_fast.ops import contract

laid: set[str] = set()
"""The names of the ops that have a Triton kernel here."""


def lay(module: str, *names: str) -> None:
    """Make `autoreid_fast.kernels.<module>.<name>` the CUDA kernel of each of these ops."""
    if contract.reference_forced() or importlib.util.find_spec("triton") is None:
        return
    for name in names:
        laid.add(name)
        torch.library.impl(f"autoreid_fast::{name}", "cuda", _on_first_call(module, name))


def _on_first_call(module: str, name: str) -> Any:
    def kernel(*arguments: Any) -> Any:
        return getattr(importlib.import_module(f"autoreid_fast.kernels.{module}"), name)(*arguments)

    return kernel
