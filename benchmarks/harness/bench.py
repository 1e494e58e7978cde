"""Measure cases, print their table, write their JSON: the work of ``autoreid-fast bench``."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console

from autoreid_fast import ops
from autoreid_fast.devices import choose_device
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import require_file, write_json

from .case import Case, Variant, find
from .measure import Samples, Step, ceiling, interleaved, peak_bytes, replay
from .out_of_process import Progress, measure_out_of_process
from .parity import Prepared, bounds, prepare, relative_error
from .results import Candidate, Floor, Results, Row, Timing, environment
from .spec_case import cases_of_file
from .table import print_table


def run(
    names: Sequence[str] = (),
    json_path: str | os.PathLike[str] | None = None,
    seconds: float = 1.0,
    device: str | None = None,
    spec: Path | None = None,
) -> int:
    """Measure cases, print a table and write ``json_path`` if given.

    Args:
        names: the cases, of ``spec`` too; default: all without their large variants, or with ``spec`` those
            of the file.
        json_path: file for all results.
        seconds: time budget per candidate and variant; large variants take as long as they take.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; default: the CPU and CUDA.
        spec: Python file with an `OpSpec`, whose cases ``names`` may name.

    Returns:
        0, or 1 if ours has no parity in some row.

    Raises:
        AutoReIDError: an unknown name, a spec that cannot be measured, ``seconds`` of 0 or less, or a
            ``json_path`` that cannot be written; no such device.
    """
    if not 0 < seconds < math.inf:
        raise AutoReIDError(f"seconds {seconds}: expected a number above 0")
    if json_path is not None:
        require_file(Path(json_path))
    kind = None if device is None else choose_device(device).type
    cases = find(names, cases_of_file(spec) if spec else ())
    progress = Console(stderr=True)
    machine = environment({peer for case in cases for peer in case.peers})
    results, rows = Results(environment=machine, rows=()), []
    for case in cases:
        for variant in case.variants:
            if variant.available and kind in (None, variant.device):
                with progress.status(f"{case.name} {variant}") as status:
                    rows.append(measure(case, variant, seconds, status.update))
                results = Results(environment=machine, rows=tuple(rows))
                if json_path is not None:  # after every row: large ones take minutes
                    write_json(json_path, results.model_dump(mode="json"))
    print_table(results)
    return 0 if all(row.passed for row in rows) else 1


def measure(case: Case, variant: Variant, seconds: float, progress: Progress = lambda text: None) -> Row:
    """One row: parity, and if ours has it, time and memory of all candidates that have it."""
    if variant.large:
        measured, backward = measure_out_of_process(case, variant, progress), False
    else:
        measured, backward = _measure_in_process(case, variant, seconds)
    floor = _floor(case, variant)
    return Row(
        case=case.name,
        sizes=dict(variant.sizes),
        large=variant.large,
        dtype=variant.dtype_name,
        device=variant.device,
        step="forward+backward" if backward else "forward",
        backend=_backend(case, variant.device),
        candidates={name: candidate for name, candidate in measured.items() if name not in case.bounds},
        bounds={name: measured[name] for name in bounds(case, variant)},
        floor=floor,
        ratios=_ratios({name: candidate.timing for name, candidate in measured.items()}, floor),
        replay_ratios=_ratios({name: candidate.replayed for name, candidate in measured.items()}, floor),
        about=case.about(variant),
    )


def _ratios(timings: dict[str, Timing | None], floor: Floor) -> dict[str, float]:
    """Seconds of the others and of the floor, divided by ours; empty without ours."""
    medians = {name: timing.median_s for name, timing in timings.items() if timing is not None}
    ours = medians.pop("ours", None)
    if ours is None:
        return {}
    return {name: median / ours for name, median in {**medians, "floor": floor.seconds}.items()}


def _measure_in_process(case: Case, variant: Variant, seconds: float) -> tuple[dict[str, Candidate], bool]:
    prepared = prepare(case, variant)
    samples: dict[str, Samples] = {}
    replayed: dict[str, Samples] = {}
    peaks: dict[str, int] = {}
    if "ours" in prepared.steps:
        samples = interleaved(prepared.steps, variant.device, seconds)
        peaks = {name: peak_bytes(step, variant.device) for name, step in prepared.steps.items()}
        if variant.device == "cuda" and case.compiles and (replays := replays_of(prepared)):
            replayed = interleaved(replays, "cuda", seconds, queued=True)
    measured = {
        name: Candidate(
            parity=prepared.parities.get(name),
            timing=_timing(samples.get(name)),
            replayed=_timing(replayed.get(name)),
            peak_bytes=peaks.get(name),
            note=prepared.notes.get(name),
        )
        for name in (*prepared.names, *bounds(case, variant))
    }
    return measured, prepared.backward


def _timing(samples: Samples | None) -> Timing | None:
    return None if samples is None else Timing.of(samples.seconds, samples.calls)


def replays_of(prepared: Prepared) -> dict[str, Step]:
    """Replays of the steps that can be recorded as CUDA graphs and whose replay has parity with the step."""
    replays: dict[str, Step] = {}
    for name, parity in prepared.parities.items():
        if name not in prepared.steps or (recorded := replay(prepared.steps[name])) is None:
            continue
        run_again, outputs = recorded
        run_again()
        error = relative_error(outputs, prepared.steps[name]())
        if error is not None and error <= parity.allowed:
            replays[name] = run_again
    return replays


def _backend(case: Case, device: str) -> str | None:
    """Backend of the case's op on a device: native or reference; None if the case is not one op."""
    measured = {spec.name for spec in ops.specs() if case.name in (spec.benchmark, spec.name)}
    names = {case.kernel} if case.kernel else measured
    backends = (
        status.backend for status in ops.status().ops if status.device == device and status.op in names
    )
    return next(backends, None)


def _floor(case: Case, variant: Variant) -> Floor:
    work, rates = case.work(variant), ceiling(variant.device, variant.dtype)
    moving, computing = work.bytes / rates.copy_bytes_per_s, work.flops / rates.gemm_flops_per_s
    bound: Literal["bytes", "flops"] = "bytes" if moving >= computing else "flops"
    return Floor(
        bytes=work.bytes,
        flops=work.flops,
        copy_bytes_per_s=rates.copy_bytes_per_s,
        gemm_flops_per_s=rates.gemm_flops_per_s,
        seconds=max(moving, computing),
        bound=bound,
    )
