"""Large variants: each candidate in processes of its own, a few times, with the rise of their memory.

A process of its own tells one candidate's memory from another's, native allocations included, and its end
costs the others nothing. ``candidate.py`` is such a process.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .case import Case, Memory, Variant
from .parity import bounds, candidates, no_parity, relative_error, tolerance
from .results import Candidate, Parity, Timing

ROUNDS = 3
ONCE_SECONDS = 30.0
"""What takes longer than this has one round."""

Tell = Callable[[str], None]


def measure_apart(case: Case, variant: Variant, tell: Tell = lambda text: None) -> dict[str, Candidate]:
    """Every candidate and bound of a large variant; parity gates speed as everywhere.

    Truth is what the twin returns, or, where the twin does not fit, the first peer that ran. Rounds go
    through all of them in turn, so that drift of the machine hits all alike.
    """
    below = bounds(case, variant)
    names = ["twin", "ours", *case.peers, *below]
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, int] = {}
    parities: dict[str, Parity] = {}
    notes: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            tell(f"{case.name} {variant}: inputs")
            job = {"case": case.name, "device": variant.device, "inputs": case.inputs(variant)}
            torch.save(job, folder / "job.pt")
        del job
        outputs: dict[str, tuple[Tensor | None, ...]] = {}
        for turn in range(ROUNDS):
            for name in names:
                if name in notes or (turn and max(seconds[name]) > ONCE_SECONDS):
                    continue
                device = "cpu" if name in case.host else variant.device
                if name in case.memory and (lacking := _lacking(case.memory[name](variant), device)):
                    notes[name] = lacking
                    continue
                tell(f"{case.name} {variant}: {name}, round {turn + 1} of {ROUNDS}")
                report = run_apart(folder, name)
                if "note" in report:
                    notes[name] = report["note"]
                    continue
                seconds.setdefault(name, []).append(report["seconds"])
                peaks[name] = max(peaks.get(name, 0), report["peak_bytes"])
                if turn == 0 and name not in case.bounds:
                    outputs[name] = report["outputs"]
            if turn == 0:
                parities = _parities(case, outputs, tolerance(case, variant))
                outputs.clear()
                for name, parity in parities.items():
                    if not parity.passed:
                        notes[name] = no_parity(parity)
                if "ours" in seconds and "ours" not in parities:
                    notes["ours"] = "no speed: neither the twin nor a peer ran, so there is no parity"
                if "ours" in notes:
                    seconds.clear()  # no speed of anything in a row that ours failed
                    break
    return {
        name: Candidate(
            parity=parities.get(name),
            timing=Timing.of(seconds[name]) if name in seconds and name not in notes else None,
            peak_bytes=peaks[name] if name in seconds and name not in notes else None,
            note=notes.get(name),
        )
        for name in (*(each for each in candidates(case, variant) if each != "compiled"), *below)
    }


def _parities(case: Case, outputs: dict[str, tuple[Tensor | None, ...]], allowed: float) -> dict[str, Parity]:
    judge = next((name for name in ("twin", *case.peers) if name in outputs), None)
    if judge is None:
        return {}
    truth = outputs[judge]
    complete = [at for at, tensor in enumerate(truth) if tensor is not None]
    known = tuple(tensor for tensor in truth if tensor is not None)
    return {
        name: Parity(
            error=relative_error(tuple(values[at] for at in complete if at < len(values)), known),
            allowed=allowed,
        )
        for name, values in outputs.items()
    }


def _lacking(memory: Memory, device: str) -> str | None:
    available = torch.cuda.mem_get_info()[0] if device == "cuda" else available_bytes()
    if memory.bytes <= available:
        return None
    gigabytes = f"{memory.bytes / 1e9:.1f} GB ({memory.arithmetic})"
    return f"does not fit: needs {gigabytes}, {available / 1e9:.1f} GB available"


def available_bytes() -> int:
    """Memory that can be had without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    [kilobytes] = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(kilobytes) * 1024


def run_apart(folder: Path, name: str) -> dict[str, Any]:
    """What the process of one candidate reports, or a ``note`` of how it ended."""
    threads = str(torch.get_num_threads())
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    command = [sys.executable, "-m", f"{__package__}.candidate", str(folder), name]
    ended = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True)
    report = folder / "report.pt"
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no word"])[-1]
        return {"note": f"its process ended with {ended.returncode}: {last}"[:160]}
    loaded: dict[str, Any] = torch.load(report)
    report.unlink()
    return loaded
