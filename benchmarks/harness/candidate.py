"""Process of one candidate of a large variant, started by `out_of_process.py`."""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .case import Case, find
from .measure import sample
from .parity import reason

WARM_UP_SECONDS = 30.0
"""A first call shorter than this is a warm-up, and the second call is timed."""


def main(folder: Path, name: str) -> None:
    """Read ``job.pt``; write ``report.pt``: ``seconds``, ``peak_bytes`` and ``outputs``, or a ``note``."""
    with contextlib.suppress(OSError):  # if memory runs out, the kernel should end this process
        Path("/proc/self/oom_score_adj").write_text("1000")
    job = torch.load(folder / "job.pt")
    [case] = find([job["case"]])
    try:
        device = "cpu" if name in case.host else job["device"]
        inputs = tuple(tensor.to(device) for tensor in job["inputs"])
        report = measured(_function(case, name), inputs, device)
        if name in case.bounds:
            report["outputs"] = ()
    except Exception as problem:  # peers may fail in any way
        report = {"note": reason(name, problem)}
    torch.save(report, folder / "report.pt")


def _function(case: Case, name: str) -> Callable[..., Any]:
    if name in case.peers:
        return case.peers[name]()
    return {"ours": case.ours, "reference": case.reference, **case.bounds}[name]


def measured(function: Callable[..., Any], inputs: tuple[Tensor, ...], device: str) -> dict[str, Any]:
    """Seconds of one call, bytes that it takes at its peak beyond the inputs, and its outputs on the CPU."""
    outputs: list[Any] = []

    def step() -> None:
        outputs.clear()
        result = function(*inputs)
        outputs.extend([result] if isinstance(result, Tensor) else result)

    ones = torch.ones(512, 512, device=device)
    torch.mm(ones, ones)  # starts the thread pool and initialises the library
    before = _resident("VmRSS")
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        with contextlib.suppress(OSError):  # resets the peak to the present size
            Path("/proc/self/clear_refs").write_text("5")
    seconds = sample(step, 1, device)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else _resident("VmHWM")
    if seconds < WARM_UP_SECONDS:
        seconds = sample(step, 1, device)
    tensors = tuple(output.cpu() if isinstance(output, Tensor) else None for output in outputs)
    return {"seconds": seconds, "peak_bytes": max(0, peak - before), "outputs": tensors}


def _resident(field: str) -> int:
    """Bytes of this process: ``VmRSS`` now, ``VmHWM`` at the peak.

    Not ``ru_maxrss``, which a process inherits from its parent.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    [kilobytes] = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(kilobytes) * 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
