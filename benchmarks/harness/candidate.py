"""The process of one candidate of a large variant, as ``large.py`` starts it."""

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

WARM_SECONDS = 30.0
"""A first call shorter than this is a warm-up, and the second one is timed."""


def main(folder: Path, name: str) -> None:
    """Read ``job.pt``; write ``report.pt``: ``seconds``, ``peak_bytes`` and ``outputs``, or a ``note``."""
    with contextlib.suppress(OSError):  # where memory runs out, let this process be the one to go
        Path("/proc/self/oom_score_adj").write_text("1000")
    job = torch.load(folder / "job.pt")
    [case] = find([job["case"]])
    try:
        device = "cpu" if name in case.host else job["device"]
        inputs = tuple(tensor.to(device) for tensor in job["inputs"])
        report = _report(_source(case, name), inputs, device)
        if name in case.bounds:
            report["outputs"] = ()
    except Exception as problem:  # a peer may fail in any way; its row goes on without it
        report = {"note": reason(name, problem)}
    torch.save(report, folder / "report.pt")


def _source(case: Case, name: str) -> Callable[..., Any]:
    if name in case.peers:
        return case.peers[name]()
    return case.bounds[name] if name in case.bounds else {"ours": case.ours, "twin": case.twin}[name]


def _report(function: Callable[..., Any], inputs: tuple[Tensor, ...], device: str) -> dict[str, Any]:
    outputs: list[Any] = []

    def step() -> None:
        outputs.clear()
        result = function(*inputs)
        outputs.extend([result] if isinstance(result, Tensor) else result)

    warm = torch.ones(512, 512, device=device)
    torch.mm(warm, warm)  # the thread pool and the library's first words
    before = _resident("VmRSS")
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        with contextlib.suppress(OSError):  # from here on the highest mark is this candidate's
            Path("/proc/self/clear_refs").write_text("5")
    seconds = sample(step, 1, device)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else _resident("VmHWM")
    if seconds < WARM_SECONDS:
        seconds = sample(step, 1, device)
    tensors = tuple(each.cpu() if isinstance(each, Tensor) else None for each in outputs)
    return {"seconds": seconds, "peak_bytes": max(0, peak - before), "outputs": tensors}


def _resident(field: str) -> int:
    """Bytes of this process: ``VmRSS`` now, ``VmHWM`` at the highest.

    Not ``ru_maxrss``, which a process inherits from the one that started it.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    [kilobytes] = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(kilobytes) * 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
