"""`doctor`: what is installed and built, and what each op runs on."""

import os
import platform
import shutil
import sys
from importlib import metadata, util
from io import StringIO
from pathlib import Path

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from autoreid_fast import __version__, ops
from autoreid_fast.commands.options import parse, show
from autoreid_fast.ops.contract import ENVIRONMENT, reference_forced
from autoreid_fast.ops.library import OpStatus, Status

BACKWARD = "_backward"
EXTRAS = {"export": ("onnx", "onnxruntime", "onnxscript")}


def run_doctor(arguments: list[str]) -> int:
    """Print versions, devices, native libraries and the backend of each op."""

    def command() -> None:
        """What is installed and built, which backend runs each op and why, and how to get a faster one."""
        found = ops.status()
        console = Console(file=StringIO(), width=110, no_color=True, markup=False, emoji=False)
        console.print(*_machine(), sep="\n", highlight=False, soft_wrap=True)
        console.print(_libraries(found), _ops(found))
        advice = _advice(found)
        console.print(*advice or ["Nothing to do: all that this machine can run is in use."], sep="\n")
        text = console.file.getvalue()  # type: ignore[attr-defined]
        show("\n".join(line.rstrip() for line in text.splitlines()))

    parse(command, "doctor", arguments)
    return 0


def _machine() -> list[str]:
    """Versions and devices, a line each."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    lines = [
        f"autoreid_fast {__version__}, Python {platform.python_version()} ({sys.executable})",
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}; triton {_version('triton') or 'not installed'}",
        *[f"GPU {index}: {name}" for index, name in enumerate(gpus)],
    ]
    return lines if gpus else [*lines, "no CUDA device"]


def _libraries(found: Status) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="bold")
    for column in ("library", "state", "built"):
        table.add_column(column)
    for library in found.libraries:
        state = "loaded" if library.loaded else f"not in use: {library.reason}"
        table.add_row(
            library.device, state, "\n".join(f"{name}: {value}" for name, value in library.facts.items())
        )
    return table


def _ops(found: Status) -> Table:
    """A row an op, forward and backward together; reasons where it is not a kernel of ours."""
    of = {(op.op, op.device): op for op in found.ops}
    table = Table(box=SIMPLE_HEAD, header_style="bold")
    for column in ("op", "on the CPU", "on CUDA"):
        table.add_column(column)
    for name in dict.fromkeys(op.op for op in found.ops if not op.op.endswith(BACKWARD)):
        cells = []
        for device in ("cpu", "cuda"):
            forward, backward = of[name, device], of.get((name + BACKWARD, device))
            cell = _cell(forward)
            if backward and _cell(backward) != cell:
                cell += f"; backward: {_cell(backward)}"
            cells.append(cell)
        table.add_row(name, *cells)
    return table


def _cell(op: OpStatus) -> str:
    reference = f"reference ({op.reason})"
    return {"native": op.kernel, "none": "-", "reference": reference}[op.backend]


def _advice(found: Status) -> list[str]:
    """How to get what is faster, or what is missing: a line each."""
    if reference_forced():
        return [f"All ops run on their PyTorch twins, as {ENVIRONMENT} says: unset it for the kernels."]
    cpu, cuda = found.libraries
    lines = []
    if not cpu.loaded:
        compiler = "" if shutil.which(os.environ.get("CXX", "g++")) else "install g++, then "
        lines.append(f"CPU kernels: {compiler}pip install --no-build-isolation --force-reinstall --no-deps .")
    gpu = torch.cuda.is_available()
    if not gpu and Path("/dev/nvidia0").exists():
        lines.append(
            "There is an NVIDIA GPU that this torch does not use: install a CUDA build of torch "
            "(pytorch.org, Get started) and a driver that fits it."
        )
    if gpu and not cuda.loaded:
        lines.append(
            "CUDA kernels: with the CUDA toolkit's nvcc on PATH, AUTOREID_FAST_CUDA=1 "
            "pip install --no-build-isolation --force-reinstall --no-deps ."
        )
    if gpu and _version("triton") is None:
        lines.append("Triton kernels: pip install triton")
    for extra, packages in EXTRAS.items():
        missing = [package for package in packages if util.find_spec(package) is None]
        if missing:
            lines.append(f"For {extra}, {', '.join(missing)}: pip install 'autoreid_fast[{extra}]'")
    return lines


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
