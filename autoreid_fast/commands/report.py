"""`report`: write the report of a run. `compare`: compare several runs."""

from pathlib import Path
from typing import Annotated

import tyro

from autoreid_fast.commands.options import parse, run_as_argument, show
from autoreid_fast.files import require_file


def run_report(arguments: list[str]) -> int:
    """Parse and run `report`."""
    parse(report, "report", run_as_argument(arguments))
    return 0


def run_compare(arguments: list[str]) -> int:
    """Parse and run `compare`."""
    parse(compare, "compare", arguments)
    return 0


def report(run: Path, /, beside: Path | None = None) -> None:
    """Write a run's report: RUN/report/index.html, a single file, and its figures as SVG and PNG.

    Args:
        run: --run or the first argument: run folder of any command, finished or not; or a folder of runs,
            such as demo's.
        beside: Another run whose results are shown for comparison; default: for an evaluation, its training.
    """
    from autoreid_fast.report.pages.run import write_report  # imports matplotlib

    show(str(write_report(run, beside)))


def compare(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional], out: Path = Path("comparison.html")
) -> None:
    """Compare runs: print a table, and write a page with cells, curves and differences of the configs.

    Args:
        runs: Run folders or folders of runs; at least two runs.
        out: Page to write.
    """
    from autoreid_fast.report.comparison import comparison_text, runs_to_compare
    from autoreid_fast.report.pages.comparison import write_comparison  # imports matplotlib

    require_file(out)
    compared = runs_to_compare(runs)
    write_comparison(compared, out)
    show(f"{comparison_text(compared)}\n{out}")
