"""Native libraries: loading them, and the status of every op on every device.

`libautoreid_fast_<device>.so` holds the ops (PyTorch's stable ABI: independent of the Python and, from 2.11
on, of the torch it was built with). `_<device>` is its pybind11 module, and importing it loads the library.
Loading adds the library's kernels to the registered ops, where they take precedence over the references. A
library that is missing or does not load costs one line of log and no traceback: the references run instead.
"""

import ctypes
import importlib
import logging
import struct
from dataclasses import dataclass, field
from pathlib import Path

import torch

from autoreid_fast.ops import contract
from autoreid_fast.ops.spec import OpSpec

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
    """Its build: compiler, instruction sets or CUDA archs, torch version; empty without `_<device>`."""


@dataclass(frozen=True)
class OpStatus:
    """The implementation of one op that runs on one device."""

    op: str
    device: str
    backend: str
    """"native", "reference", or "none" where there is no such device."""
    reason: str
    """Why it is not native; empty if it is."""
    kernel: str = ""
    """Language of the native kernel: "C++", "CUDA" or "Triton"."""


@dataclass(frozen=True)
class Status:
    """All libraries and all ops."""

    libraries: tuple[LibraryStatus, ...]
    ops: tuple[OpStatus, ...]


def load() -> None:
    """Load every native library that this torch can run; called once, on import of `autoreid_fast.ops`."""
    for device in ("cpu", "cuda"):
        library = _libraries[device] = _load(device)
        if (
            not library.loaded
            and not contract.reference_forced()
            and (device == "cpu" or torch.cuda.is_available())
        ):
            _log.warning(
                "autoreid_fast: %s library: %s; using the PyTorch reference ops (slower). Build it with "
                "`pip install --no-build-isolation .`, or set %s=reference to silence this line",
                device,
                library.reason,
                contract.ENVIRONMENT,
            )
    find_kernels()


def find_kernels() -> None:
    """Look up which ops have a kernel on which device; call it again after loading a library of your own."""
    _native.update(
        (spec.qualified, device)
        for spec in contract.specs()
        for device in ("cpu", "cuda")
        if torch._C._dispatch_has_kernel_for_dispatch_key(spec.qualified, device.upper())
    )


def runs_native(op: str, x: torch.Tensor) -> bool:
    """Whether ``op`` uses a kernel on tensors like x, and not its reference.

    For modules that also have a composition of plain PyTorch layers, which is faster than the reference.

    Args:
        op: Name of an op of this package, or ``namespace::name`` of one of your own.
        x: The op's first argument.

    Examples:
        >>> import torch
        >>> from autoreid_fast import ops
        >>> with ops.backend("reference"):
        ...     ops.runs_native("batch_hard", torch.ones(2, 2))
        False
    """
    qualified = op if "::" in op else f"{OpSpec.namespace}::{op}"
    return (qualified, x.device.type) in _native and not contract.runs_reference(x)


def status() -> Status:
    """Status of the libraries and, for each op on each device, the backend that runs it; see `doctor`.

    Examples:
        >>> from autoreid_fast import ops
        >>> {op.backend for op in ops.status().ops} <= {"native", "reference", "none"}
        True
    """
    ops = tuple(_op_status(spec, device) for spec in contract.specs() for device in _libraries)
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
    if any(_is_cut_short(file) for file in (path, *_folder.glob(f"_{device}.*.so"))):
        return LibraryStatus(device, True, False, "cut short, as by a full disk")
    try:
        try:
            facts = importlib.import_module(f"autoreid_fast._{device}").facts()
        except ModuleNotFoundError:  # built for another Python; the ops do not depend on it
            ctypes.CDLL(str(path))
            facts = {}
    except (ImportError, OSError) as error:
        reason = str(error).splitlines()[0]
        return LibraryStatus(device, True, False, f"does not load with torch {torch.__version__} ({reason})")
    return LibraryStatus(device, True, True, "", facts)


def _is_cut_short(path: Path) -> bool:
    """Whether an ELF file ends before its section headers, which come last: mapping it is a bus error."""
    with path.open("rb") as file:
        header = file.read(64)
    if len(header) < 64 or not header.startswith(b"\x7fELF\x02"):
        return False  # not a 64-bit ELF file; the loader says so
    (offset,) = struct.unpack_from("<Q", header, 40)
    entry_size, entries = struct.unpack_from("<HH", header, 58)
    return path.stat().st_size < int(offset + entry_size * entries)


def _op_status(spec: OpSpec, device: str) -> OpStatus:
    if contract.reference_forced():
        return OpStatus(spec.name, device, "reference", "asked for")
    library = _libraries[device]
    if device == "cuda" and not torch.cuda.is_available():
        return OpStatus(spec.name, device, "none", "no CUDA device" if torch.version.cuda else library.reason)
    if (spec.qualified, device) in _native:
        return OpStatus(spec.name, device, "native", "", _language(spec, device))
    reason = f"no kernel in the {device} library" if library.loaded else library.reason
    return OpStatus(spec.name, device, "reference", reason)


def _language(spec: OpSpec, device: str) -> str:
    if device == "cpu":
        return "C++"
    return "Triton" if contract.runs_triton(spec) else "CUDA"
