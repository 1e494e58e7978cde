"""`bench`: measure the kernels."""

from pathlib import Path
from typing import Literal

from autoreid_fast.commands.options import parse


def run_bench(arguments: list[str]) -> int:
    """Measure ops against their twins, `torch.compile`, peers and floors."""

    def command(
        names: tuple[str, ...] = (),
        /,
        json: Path | None = None,
        device: Literal["cpu", "cuda"] | None = None,
        seconds: float = 1.0,
    ) -> int:
        """Measure ops against their twins, torch.compile of the twins, peers and the machine's floor.

        Args:
            names: Cases to run; default: all.
            json: Write every figure there as well.
            device: Measure on this device alone; default: on every one that is here.
            seconds: Time budget of each candidate; large cases take what they take.
        """
        from autoreid_fast.benchmarks import run

        return run(list(names), json, seconds, device)

    return int(parse(command, "bench", arguments))
