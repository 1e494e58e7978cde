"""Large variants: each candidate runs a few times, out of process, with the peak of its memory.

A process per candidate separates their memory, native allocations included, and survives the end of any
other. `candidate.py` is such a process.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .case import Case, Memory, Variant
from .parity import bounds, candidates, no_parity, relative_error, tolerance
from .results import Candidate, Parity, Timing

ROUNDS = 3
ONCE_SECONDS = 30.0
"""Candidates slower than this run in the first round only."""

Progress = Callable[[str], None]
Outputs = tuple[Tensor | None, ...]


def measure_out_of_process(
    case: Case, variant: Variant, progress: Progress = lambda text: None
) -> dict[str, Candidate]:
    """Measure every candidate and bound of a large variant; only those with parity get a speed.

    The truth is the reference's result or, where the reference does not fit, that of the first peer that ran.
    Rounds alternate between the candidates, so that drift of the machine affects all alike.
    """
    with tempfile.TemporaryDirectory() as folder:
        progress(f"{case.name} {variant}: inputs")
        _write_job(case, variant, Path(folder))
        measurement = _Measurement(case, variant, Path(folder), progress)
        measurement.run()
    compared = [name for name in candidates(case, variant) if name != "compiled"]
    return {name: measurement.candidate(name) for name in (*compared, *bounds(case, variant))}


def _write_job(case: Case, variant: Variant, folder: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        job = {"case": case.name, "device": variant.device, "inputs": case.inputs(variant)}
    torch.save(job, folder / "job.pt")


class _Measurement:
    """Rounds of one variant: times, peaks, parities, and notes on candidates that failed."""

    def __init__(self, case: Case, variant: Variant, folder: Path, progress: Progress) -> None:
        self.case, self.variant, self.folder, self.progress = case, variant, folder, progress
        self.names = ("reference", "ours", *case.peers, *bounds(case, variant))
        self.seconds: dict[str, list[float]] = {}
        self.peaks: dict[str, int] = {}
        self.parities: dict[str, Parity] = {}
        self.notes: dict[str, str] = {}

    def run(self) -> None:
        """The first round decides on parity; where ours fails, nothing gets a speed and no other follows."""
        self.parities = self._parities(dict(self._round(0)))
        for name, parity in self.parities.items():
            if not parity.passed:
                self.notes[name] = no_parity(parity)
        if "ours" in self.seconds and "ours" not in self.parities:
            self.notes["ours"] = "no speed: neither the reference nor a peer ran, so there is no parity"
        if "ours" in self.notes:
            self.seconds.clear()
            return
        for turn in range(1, ROUNDS):
            for _ in self._round(turn):
                pass

    def candidate(self, name: str) -> Candidate:
        """The results of one candidate or bound."""
        timed = name in self.seconds and name not in self.notes
        return Candidate(
            parity=self.parities.get(name),
            timing=Timing.of(self.seconds[name]) if timed else None,
            peak_bytes=self.peaks[name] if timed else None,
            note=self.notes.get(name),
        )

    def _round(self, turn: int) -> Iterator[tuple[str, Outputs]]:
        """Run every candidate that has not failed; yields the outputs of those that are compared."""
        for name in self.names:
            if name in self.notes or (turn and max(self.seconds[name]) > ONCE_SECONDS):
                continue
            device = "cpu" if name in self.case.host else self.variant.device
            if name in self.case.memory and (lack := _lack(self.case.memory[name](self.variant), device)):
                self.notes[name] = lack
                continue
            self.progress(f"{self.case.name} {self.variant}: {name}, round {turn + 1} of {ROUNDS}")
            report = run_candidate(self.folder, name)
            if "note" in report:
                self.notes[name] = report["note"]
                continue
            self.seconds.setdefault(name, []).append(report["seconds"])
            self.peaks[name] = max(self.peaks.get(name, 0), report["peak_bytes"])
            if name not in self.case.bounds:
                yield name, report["outputs"]

    def _parities(self, outputs: dict[str, Outputs]) -> dict[str, Parity]:
        judge = next((name for name in ("reference", *self.case.peers) if name in outputs), None)
        if judge is None:
            return {}
        truth = outputs[judge]
        computed = [index for index, tensor in enumerate(truth) if tensor is not None]
        known = tuple(tensor for tensor in truth if tensor is not None)
        allowed = tolerance(self.case, self.variant)
        return {
            name: Parity(
                error=relative_error(
                    tuple(values[index] for index in computed if index < len(values)), known
                ),
                allowed=allowed,
            )
            for name, values in outputs.items()
        }


def _lack(memory: Memory, device: str) -> str | None:
    """One line on why a candidate does not fit; None if it does."""
    available = torch.cuda.mem_get_info()[0] if device == "cuda" else available_bytes()
    if memory.bytes <= available:
        return None
    gigabytes = f"{memory.bytes / 1e9:.1f} GB ({memory.arithmetic})"
    return f"does not fit: needs {gigabytes}, {available / 1e9:.1f} GB available"


def available_bytes() -> int:
    """Memory that can be allocated without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    [kilobytes] = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(kilobytes) * 1024


def run_candidate(folder: Path, name: str) -> dict[str, Any]:
    """The report of one candidate's process, or a ``note`` on how it ended."""
    threads = str(torch.get_num_threads())
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    command = [sys.executable, "-m", f"{__package__}.candidate", str(folder), name]
    ended = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True)
    report = folder / "report.pt"
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        return {"note": f"its process ended with {ended.returncode}: {last}"[:160]}
    loaded: dict[str, Any] = torch.load(report)
    report.unlink()
    return loaded
