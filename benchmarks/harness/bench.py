"""Run cases, print their table, write their JSON: the whole of ``autoreid-fast bench``."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console

from autoreid_fast import ops
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import write_json

from .case import Case, Variant, find
from .large import Tell, measure_apart
from .measure import Samples, Step, ceiling, interleaved, peak_bytes, replay
from .parity import Prepared, bounds, prepare, relative_error
from .results import Candidate, Floor, Results, Row, Timing, environment
from .table import print_table


def run(
    names: Sequence[str] = (),
    json_path: str | os.PathLike[str] | None = None,
    seconds: float = 1.0,
    device: str | None = None,
) -> int:
    """Measure the named cases (all by default), print a table and write ``json_path`` where given.

    ``seconds`` is the time budget of each candidate of each variant; large ones, which are run by name
    only, take what they take. ``device``: only the variants of this one; those whose device this machine
    lacks are left out.

    Returns:
        0, or 1 where ours failed parity in any row.

    Raises:
        AutoReIDError: an unknown name, or a ``json_path`` that is a folder.
    """
    cases = find(names)
    if json_path is not None and Path(json_path).is_dir():
        raise AutoReIDError(f"--json {json_path}: a folder; name a file in it")
    progress = Console(stderr=True)
    where = environment({peer for case in cases for peer in case.peers})
    results, rows = Results(environment=where, rows=()), []
    for case in cases:
        for variant in case.variants:
            if variant.available and device in (None, variant.device):
                with progress.status(f"{case.name} {variant}") as status:
                    rows.append(measure(case, variant, seconds, status.update))
                results = Results(environment=where, rows=tuple(rows))
                if json_path is not None:  # after every row: the large ones take minutes
                    write_json(json_path, results.model_dump(mode="json"))
    print_table(results)
    return 0 if all(row.passed for row in rows) else 1


def measure(case: Case, variant: Variant, seconds: float, tell: Tell = lambda text: None) -> Row:
    """One row: parity first; then, only where ours has it, time and memory of all candidates that have it."""
    if variant.large:
        measured, backward = measure_apart(case, variant, tell), False
    else:
        measured, backward = _measure_here(case, variant, seconds)
    floor = _floor(case, variant)
    medians = {name: each.timing.median_s for name, each in measured.items() if each.timing is not None}
    ours = medians.pop("ours", None)
    replays = {name: each.replayed.median_s for name, each in measured.items() if each.replayed is not None}
    own_replay = replays.pop("ours", None)
    return Row(
        case=case.name,
        sizes=dict(variant.sizes),
        large=variant.large,
        dtype=variant.dtype_name,
        device=variant.device,
        step="forward+backward" if backward else "forward",
        backend=_backend(case.kernel or case.name, variant.device),
        candidates={name: each for name, each in measured.items() if name not in case.bounds},
        bounds={name: measured[name] for name in bounds(case, variant)},
        floor=floor,
        ratios={name: taken / ours for name, taken in {**medians, "floor": floor.seconds}.items()}
        if ours
        else {},
        replay_ratios={
            name: taken / own_replay for name, taken in {**replays, "floor": floor.seconds}.items()
        }
        if own_replay
        else {},
        about=case.about(variant),
    )


def _measure_here(case: Case, variant: Variant, seconds: float) -> tuple[dict[str, Candidate], bool]:
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
    """The steps that can be CUDA graphs, as such, where these give what the steps give."""
    found: dict[str, Step] = {}
    for name, parity in prepared.parities.items():
        if name not in prepared.steps or (recorded := replay(prepared.steps[name])) is None:
            continue
        run_again, outputs = recorded
        run_again()
        error = relative_error(outputs, prepared.steps[name]())
        if error is not None and error <= parity.allowed:
            found[name] = run_again
    return found


def _backend(op: str, device: str) -> str | None:
    return next((each.backend for each in ops.status().ops if (each.op, each.device) == (op, device)), None)


def _floor(case: Case, variant: Variant) -> Floor:
    work, top = case.work(variant), ceiling(variant.device, variant.dtype)
    moving, computing = work.bytes / top.copy_bytes_per_s, work.flops / top.gemm_flops_per_s
    bound: Literal["bytes", "flops"] = "bytes" if moving >= computing else "flops"
    return Floor(
        bytes=work.bytes,
        flops=work.flops,
        copy_bytes_per_s=top.copy_bytes_per_s,
        gemm_flops_per_s=top.gemm_flops_per_s,
        seconds=max(moving, computing),
        bound=bound,
    )
