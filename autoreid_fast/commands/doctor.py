"""`doctor`: show what is installed and built, and what each op runs on."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata, util
from io import StringIO
from pathlib import Path

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from autoreid_fast import __version__, ops
from autoreid_fast.commands.options import parse, show
from autoreid_fast.devices import avg_pool_backward_is_right
from autoreid_fast.ops.contract import ENVIRONMENT, reference_forced
from autoreid_fast.ops.library import OpStatus, Status

BACKWARD = "_backward"
EXTRAS = {"export": ("onnx", "onnxruntime", "onnxscript")}
_AVERAGE_POOL = {
    True: "torch's average pool on CUDA: right",
    False: "torch's average pool on CUDA: wrong gradients for channels-last tensors (pytorch issue 188344); "
    "contiguous copies are used instead",
}
INSTALL = "pip install --no-build-isolation --force-reinstall --no-deps ."


def run_doctor(arguments: list[str]) -> int:
    """Parse and run `doctor`."""
    parse(doctor, "doctor", arguments)
    return 0


def doctor() -> None:
    """Show what is installed and built, which backend runs each op and why, and how to get a faster one."""
    status = ops.status()
    text = StringIO()
    console = Console(file=text, width=110, no_color=True, markup=False, emoji=False)
    console.print(*_machine(), sep="\n", highlight=False, soft_wrap=True)
    console.print(_library_table(status), _op_table(status))
    advice = list(_advice(status))
    console.print(*advice or ["Nothing to do: everything that this machine can run is in use."], sep="\n")
    show("\n".join(line.rstrip() for line in text.getvalue().splitlines()))


def _machine() -> list[str]:
    """Lines with versions and devices."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return [
        f"autoreid_fast {__version__}, Python {platform.python_version()} ({sys.executable})",
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}; triton {_version('triton') or 'not installed'}",
        *([f"GPU {index}: {name}" for index, name in enumerate(gpus)] or ["no CUDA device"]),
        *([_AVERAGE_POOL[avg_pool_backward_is_right()]] if gpus else []),
    ]


def _library_table(status: Status) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="bold")
    for column in ("library", "state", "built"):
        table.add_column(column)
    for library in status.libraries:
        state = "loaded" if library.loaded else f"not in use: {library.reason}"
        facts = "\n".join(f"{name}: {value}" for name, value in library.facts.items())
        table.add_row(library.device, state, facts)
    return table


def _op_table(status: Status) -> Table:
    """One row per op, forward and backward together; with the reason where no kernel of ours runs."""
    by_device = {(op.op, op.device): op for op in status.ops}
    table = Table(box=SIMPLE_HEAD, header_style="bold")
    for column in ("op", "on the CPU", "on CUDA"):
        table.add_column(column)
    for name in dict.fromkeys(op.op for op in status.ops if not op.op.endswith(BACKWARD)):
        entries = []
        for device in ("cpu", "cuda"):
            forward, backward = by_device[name, device], by_device.get((name + BACKWARD, device))
            entry = _backend(forward)
            if backward and _backend(backward) != entry:
                entry += f"; backward: {_backend(backward)}"
            entries.append(entry)
        table.add_row(name, *entries)
    return table


def _backend(op: OpStatus) -> str:
    return {"native": op.kernel, "none": "-", "reference": f"reference ({op.reason})"}[op.backend]


def _advice(status: Status) -> Iterator[str]:
    """Lines that say how to get what is faster, or missing."""
    if reference_forced():
        yield f"{ENVIRONMENT} makes all ops run on their PyTorch references: unset it to use the kernels."
        return
    cpu, cuda = status.libraries
    if not cpu.loaded:
        compiler = "" if shutil.which(os.environ.get("CXX", "g++")) else "install g++, then "
        yield f"CPU kernels: {compiler}{INSTALL}"
    gpu = torch.cuda.is_available()
    if not gpu and Path("/dev/nvidia0").exists():
        yield (
            "There is an NVIDIA GPU, but this torch cannot use it: install a CUDA build of torch "
            "(pytorch.org, Get started) and a matching driver."
        )
    if gpu and not cuda.loaded:
        yield f"CUDA kernels: with the CUDA toolkit's nvcc on PATH, AUTOREID_FAST_CUDA=1 {INSTALL}"
    if gpu and _version("triton") is None:
        yield "Triton kernels: pip install triton"
    for extra, packages in EXTRAS.items():
        missing = [package for package in packages if util.find_spec(package) is None]
        if missing:
            yield f"For {extra}, {', '.join(missing)}: pip install 'autoreid_fast[{extra}]'"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
