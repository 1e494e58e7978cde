"""`doctor`: what is installed and built, and what each op runs on."""

import platform
import sys

import torch

from autoreid_fast import __version__, ops
from autoreid_fast.commands.options import parse, show


def run_doctor(arguments: list[str]) -> int:
    """Print versions, devices, native libraries and the backend of each op."""

    def command() -> None:
        """What is installed and built, and which backend runs each op, and why."""
        show("\n".join(_lines()))

    parse(command, "doctor", arguments)
    return 0


def _lines() -> list[str]:
    found = ops.status()
    lines = [
        f"autoreid_fast {__version__}, Python {platform.python_version()} ({sys.executable})",
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}",
    ]
    count = torch.cuda.device_count()
    lines += [f"GPU {index}: {torch.cuda.get_device_name(index)}" for index in range(count)] or [
        "no CUDA device"
    ]
    for library in found.libraries:
        state = "loaded" if library.loaded else f"not in use: {library.reason}"
        lines.append(f"{library.device} library: {state}")
        lines += [f"    {name}: {value}" for name, value in library.facts.items()]
    for op in found.ops:
        lines.append(f"{op.op} on {op.device}: {op.backend}" + (f" ({op.reason})" if op.reason else ""))
    return lines
