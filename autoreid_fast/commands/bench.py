"""`bench`: measure the kernels."""

from pathlib import Path

from autoreid_fast.commands.options import parse


def run_bench(arguments: list[str]) -> int:
    """Measure ops against their twins, `torch.compile`, peers and floors."""

    def command(names: tuple[str, ...] = (), /, json: Path | None = None) -> int:
        """Measure ops against their twins, torch.compile of the twins, peers and the machine's floor.

        Args:
            names: Cases to run; default: all.
            json: Write every figure there as well.
        """
        from autoreid_fast.benchmarks import run

        return run(list(names), json)

    return int(parse(command, "bench", arguments))
