"""`parity`: compare every op with its reference in float64."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from pydantic import Field
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from autoreid_fast import __version__, ops
from autoreid_fast.commands.options import parse, show
from autoreid_fast.devices import DeviceName, choose_device
from autoreid_fast.errors import AutoReIDError, describe_error, did_you_mean
from autoreid_fast.files import require_file, write_json
from autoreid_fast.ops.contract import ENVIRONMENT, reference_forced
from autoreid_fast.ops.parity import Deviation, calls_of, deviations, drawn
from autoreid_fast.ops.sampling import LAYOUTS, Draw
from autoreid_fast.ops.spec import OpSpec
from autoreid_fast.report.text_tables import plain_text
from autoreid_fast.runs.environment import cpu_model
from autoreid_fast.schema import Config

RULE = """\
Errors are relative to the largest element of each tensor, against the reference in float64. The bound is
twice the error of the reference in the op's dtype, plus a few roundings; integers must be equal, and the op's
fake must have the shape, dtype and strides of each output. Each line has the output or gradient closest to
its bound; --samples 1 --seed SEED repeats its sample."""


class Worst(Config):
    """The output or gradient of one op, in one dtype, that comes closest to its bound."""

    op: str
    dtype: str = Field(description="of the samples")
    device: str
    backend: str | None = Field(description="what the op ran on: native or reference")
    samples: int = Field(description="samples in which the op was called")
    seed: int = Field(description="of the sample")
    output: str = Field(description="name of the output, or of the argument whose gradient it is")
    error: float | None = Field(description="null where shapes or dtypes differ, or a value is not finite")
    reference_error: float = Field(description="error of the reference in the same dtype")
    bound: float = Field(description="largest error that passes")
    passed: bool


class ParityResults(Config):
    """Results of one call of `parity`."""

    package: str = Field(description="version of autoreid_fast")
    torch: str = Field(description="version of torch")
    cpu: str
    gpu: str | None
    rows: tuple[Worst, ...]


def run_parity(arguments: list[str]) -> int:
    """Parse and run `parity`."""
    return int(parse(parity, "parity", arguments))


def parity(
    names: tuple[str, ...] = (),
    /,
    spec: Path | None = None,
    device: DeviceName | None = None,
    samples: int = 12,
    seed: int = 0,
    json: Path | None = None,
) -> int:
    """Compare ops, forward and backward, with their references in float64, over shapes, dtypes and layouts.

    Args:
        names: Ops, by the names that doctor lists; default: all, or with --spec those of the file.
        spec: Python file with an OpSpec of your own.
        device: Compare on this device only (auto, cpu, cuda or cuda:N); default: on the CPU and on CUDA.
        samples: Samples per op and dtype.
        seed: Seed of the first sample; each further one has the next seed.
        json: File for the results.
    """
    if samples < 1:
        raise AutoReIDError(f"samples {samples}: expected a number of at least 1")
    if json is not None:
        require_file(json)
    if reference_forced():
        raise AutoReIDError(f"parity: {ENVIRONMENT}=reference runs no kernel to compare; unset it")
    specs = _chosen(names, ops.load_specs(spec) if spec else None)
    rows: list[Worst] = []
    progress = Console(stderr=True)
    for chosen in specs:
        for place in _devices(device):
            for dtype in chosen.dtypes:
                with progress.status(f"{chosen.name} {_text(dtype)} {place}"):
                    rows = merged([*rows, *compare(chosen, dtype, place, samples, seed)])
    show(f"{_table(rows)}\n{RULE}")
    if json is not None:
        write_json(json, _results(rows).model_dump(mode="json"))
    verdict = _verdict(specs, rows)
    show(verdict or "all ops have parity")
    return 1 if verdict else 0


def _verdict(specs: Sequence[OpSpec], rows: Sequence[Worst]) -> str:
    """The ops without parity, and those that their functions did not call; empty if there are none."""
    compared = {row.op for row in rows}
    failed = sorted({row.op for row in rows if not row.passed})
    uncalled = [spec.name for spec in specs if spec.name not in compared]
    lines = [f"no parity: {', '.join(failed)}"] if failed else []
    lines += (
        [f"not compared, because their functions do not call them: {', '.join(uncalled)}"] if uncalled else []
    )
    return "\n".join(lines)


def _results(rows: Sequence[Worst]) -> ParityResults:
    return ParityResults(
        package=__version__,
        torch=torch.__version__,
        cpu=cpu_model(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        rows=tuple(rows),
    )


def compare(spec: OpSpec, dtype: torch.dtype, device: str, samples: int = 12, seed: int = 0) -> list[Worst]:
    """Compare one op with its reference, in one dtype on one device.

    Args:
        spec: the op; it must have samples.
        dtype: of the samples' floating tensors.
        device: ``cpu`` or ``cuda``.
        samples: how many, in alternating memory layouts.
        seed: of the first sample.

    Returns:
        one entry for the op and for each further op that its public function calls, backward ops included;
        none where the function calls no op (float64 on CUDA uses the references).
    """
    rows: list[Worst] = []
    for sample_seed in range(seed, seed + samples):
        worst: dict[str, Worst] = {}
        for deviation in _deviations(spec, dtype, device, sample_seed):
            row = _row(deviation, dtype, device, sample_seed)
            worst[row.op] = max(worst.get(row.op, row), row, key=_badness)
        rows = merged([*rows, *worst.values()])
    return rows


def merged(rows: Sequence[Worst]) -> list[Worst]:
    """The worst row per op, dtype and device, with the samples of all."""
    worst: dict[tuple[str, str, str], Worst] = {}
    for row in rows:
        key = (row.op, row.dtype, row.device)
        if key in worst:
            samples = worst[key].samples + row.samples
            row = max(worst[key], row, key=_badness).model_copy(update={"samples": samples})
        worst[key] = row
    return list(worst.values())


def _deviations(spec: OpSpec, dtype: torch.dtype, device: str, seed: int) -> Iterator[Deviation]:
    """Deviations of one sample; an op that raises has an infinite one."""
    layouts = (None, *LAYOUTS)
    sample = drawn(spec, Draw(seed, dtype, device, layouts[seed % len(layouts)]))
    try:
        yield from deviations(spec, sample)
    except Exception as error:  # an op under test may fail in any way
        yield Deviation(spec.name, f"raises {describe_error(error)}", dtype, float("inf"), 0.0, 0.0)


def _row(deviation: Deviation, dtype: torch.dtype, device: str, seed: int) -> Worst:
    statuses = {(status.op, status.device): status.backend for status in ops.status().ops}
    return Worst(
        op=deviation.op,
        dtype=_text(dtype),
        device=device,
        backend=statuses.get((deviation.op, device)),
        samples=1,
        seed=seed,
        output=deviation.output,
        error=deviation.error if deviation.error < float("inf") else None,
        reference_error=deviation.reference_error,
        bound=deviation.bound,
        passed=deviation.passed,
    )


def _badness(row: Worst) -> float:
    """How close a row is to its bound: 1 at the bound, infinite where there is no number to compare."""
    if row.error is None:
        return float("inf")
    return row.error / row.bound if row.bound else row.error


def _chosen(names: Sequence[str], from_file: Sequence[OpSpec] | None) -> list[OpSpec]:
    """The specs to compare: by name, of the user's file, or all.

    Raises:
        AutoReIDError: no op has this name, or one of the file has no samples.
    """
    for spec in from_file or ():
        if spec.sample is None:
            raise AutoReIDError(
                f"parity: OpSpec `{spec.qualified}` has no `sample`; add one that draws a call"
            )
    known = [spec for spec in ops.specs() if spec.sample is not None]
    if not names:
        return known if from_file is None else list(from_file)
    by_name = {name: spec for spec in ops.specs() for name in _names(spec)}
    for name in names:
        if name not in by_name:
            hint = did_you_mean(name, by_name) or f"expected one of {', '.join(by_name)}"
            raise AutoReIDError(f"parity: no op {name!r}; {hint}")
    asked = [by_name[name] for name in names]
    compared = [one for spec in asked for one in ([spec] if spec.sample else _callers(spec, known))]
    return list({spec.qualified: spec for spec in compared}.values())


def _names(spec: OpSpec) -> set[str]:
    """Names of the op and of its public function."""
    return {spec.name} | ({spec.arguments.function} if spec.arguments is not None else set())


def _callers(op: OpSpec, known: Sequence[OpSpec]) -> list[OpSpec]:
    """The ops whose public functions call ``op``, which has no samples of its own."""
    return [
        spec
        for spec in known
        if spec.namespace == op.namespace
        if any(call.spec is op for call in calls_of(spec, drawn(spec, Draw(0))))
    ]


def _devices(device: str | None) -> list[str]:
    if device is not None:
        return [choose_device(device).type]
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def _table(rows: Sequence[Worst]) -> str:
    table = Table(box=SIMPLE_HEAD, header_style="bold")
    for name in ("op", "dtype", "device", "runs on", "samples", "seed", "worst output"):
        table.add_column(name, justify="right" if name in ("samples", "seed") else "left", overflow="fold")
    for name in ("error", "reference", "bound", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.op,
            row.dtype,
            row.device,
            row.backend or "-",
            str(row.samples),
            str(row.seed),
            row.output.replace("[", r"\["),
            "-" if row.error is None else f"{row.error:.1e}",
            f"{row.reference_error:.1e}",
            f"{row.bound:.1e}",
            "" if row.passed else "FAILED",
        )
    return plain_text(table, width=140)


def _text(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
