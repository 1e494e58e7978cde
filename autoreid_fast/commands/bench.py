"""`bench`: benchmark the ops."""

from pathlib import Path

from autoreid_fast.commands.options import parse
from autoreid_fast.devices import DeviceName


def run_bench(arguments: list[str]) -> int:
    """Parse and run `bench`."""
    return int(parse(bench, "bench", arguments))


def bench(
    names: tuple[str, ...] = (),
    /,
    spec: Path | None = None,
    device: DeviceName | None = None,
    seconds: float = 1.0,
    json: Path | None = None,
) -> int:
    """Benchmark ops against their references, torch.compile, peers and the hardware's limits.

    Args:
        names: Cases; default: all, or with --spec those of the file.
        spec: Python file with an OpSpec of your own, measured on its samples.
        device: Measure on this device only (auto, cpu, cuda or cuda:N); default: on the CPU and on CUDA.
        seconds: Time budget per candidate; large cases take as long as they take.
        json: File for the results.
    """
    from autoreid_fast.benchmarks import run  # imports the ops

    return run(list(names), json, seconds, device, spec)
