"""The native libraries: loading them once, and saying what runs where and why.

`libautoreid_fast_<device>.so` holds the ops (PyTorch's stable ABI: independent of the Python and, from 2.11
on, of the torch it was built with); `_<device>` is its pybind11 face, importing which loads it. Loading lays
the library's kernels over the reference twins. A library that is missing or does not load costs one line of
log, never a traceback: the twins go on.
"""

import ctypes
import importlib
import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch

from autoreid_fast.ops import contract, triton_kernels

_log = logging.getLogger("autoreid_fast")
_folder = Path(__file__).resolve().parent.parent
_libraries: "dict[str, LibraryStatus]" = {}
_native: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class LibraryStatus:
    """One native library, "cpu" or "cuda"."""

    device: str
    built: bool
    loaded: bool
    reason: str
    """Why it is not loaded; empty if it is."""
    facts: dict[str, str] = field(default_factory=dict)
    """What was built: compiler, instruction sets or CUDA archs, torch version; empty without its face."""


@dataclass(frozen=True)
class OpStatus:
    """What runs one op on one device."""

    op: str
    device: str
    backend: str
    """"native", "reference", or "none" where there is no such device."""
    reason: str
    """Why it is not native; empty if it is."""
    kernel: str = ""
    """What the native kernel is written in: "C++", "CUDA" or "Triton"."""


@dataclass(frozen=True)
class Status:
    """All libraries and all ops."""

    libraries: tuple[LibraryStatus, ...]
    ops: tuple[OpStatus, ...]


def load() -> None:
    """Load every native library that this torch can run; called once, on import of `autoreid_fast.ops`."""
    for device in ("cpu", "cuda"):
        found = _libraries[device] = _load(device)
        if (
            not found.loaded
            and not contract.reference_forced()
            and (device == "cpu" or torch.cuda.is_available())
        ):
            _log.warning(
                "autoreid_fast: %s library: %s; using the PyTorch reference ops (slower). Build it with "
                "`pip install --no-build-isolation .`, or set %s=reference to be silent",
                device,
                found.reason,
                contract.ENVIRONMENT,
            )
        _native.update((op, device) for op in contract.defined() if _has_kernel(op, device))


def runs_native(op: str, x: torch.Tensor) -> bool:
    """Whether ``op`` on tensors like x runs by a kernel, not by its reference twin.

    For modules that have a form in plain PyTorch besides that on the op: the twin is the slower of the two.
    """
    return (
        (op, x.device.type) in _native
        and not contract.reference_forced()
        and not (x.is_cuda and x.dtype == torch.float64)
    )


def status() -> Status:
    """What is built and loaded, and which backend runs each op on each device, as `doctor` prints it."""
    ops = tuple(_op_status(op, device) for op in contract.defined() for device in _libraries)
    return Status(tuple(_libraries.values()), ops)


def _load(device: str) -> LibraryStatus:
    path = _folder / f"libautoreid_fast_{device}.so"
    built = path.is_file()
    if contract.reference_forced():
        return LibraryStatus(device, built, False, f"{contract.ENVIRONMENT}=reference")
    if device == "cuda" and torch.version.cuda is None:
        return LibraryStatus(device, built, False, f"torch {torch.__version__} has no CUDA")
    if not built:
        return LibraryStatus(device, False, False, "not built")
    try:
        try:
            facts = importlib.import_module(f"autoreid_fast._{device}").facts()
        except ModuleNotFoundError:  # built for another Python: the ops do not mind
            ctypes.CDLL(str(path))
            facts = {}
    except (ImportError, OSError) as error:
        reason = str(error).splitlines()[0]
        return LibraryStatus(device, True, False, f"does not load with torch {torch.__version__} ({reason})")
    return LibraryStatus(device, True, True, "", facts)


def _op_status(op: str, device: str) -> OpStatus:
    if contract.reference_forced():
        return OpStatus(op, device, "reference", "asked for")
    library = _libraries[device]
    if device == "cuda" and not torch.cuda.is_available():
        return OpStatus(op, device, "none", "no CUDA device" if torch.version.cuda else library.reason)
    if (op, device) in _native:
        kernel = "C++" if device == "cpu" else "Triton" if op in triton_kernels.laid else "CUDA"
        return OpStatus(op, device, "native", "", kernel)
    return OpStatus(
        op, device, "reference", f"no kernel in the {device} library" if library.loaded else library.reason
    )


def _has_kernel(op: str, device: str) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(f"{contract.NAMESPACE}::{op}", device.upper()))
