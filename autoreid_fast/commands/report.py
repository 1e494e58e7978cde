"""`report`: the page of a run. `compare`: runs side by side."""

from pathlib import Path
from typing import Annotated

import tyro

from autoreid_fast.commands.options import parse, show
from autoreid_fast.report.comparison import comparison_text, runs_to_compare


def run_report(arguments: list[str]) -> int:
    """Draw the report of a run."""

    def command(run: Path, /, beside: Path | None = None) -> None:
        """Draw a run's report: RUN/report/index.html, one file, and its figures as SVG and PNG beside it.

        Args:
            run: Run folder of any command, finished or not; or a folder of runs, as the demo's.
            beside: Another run, whose figures stand beside this one's; an evaluation's training by default.
        """
        from autoreid_fast.report.pages.run import write_report

        show(str(write_report(run, beside)))

    parse(command, "report", arguments)
    return 0


def run_compare(arguments: list[str]) -> int:
    """Compare runs."""

    def command(
        runs: Annotated[tuple[Path, ...], tyro.conf.Positional], out: Path = Path("comparison.html")
    ) -> None:
        """Runs side by side: a table here; a page with cells, curves and what differs in the configs.

        Args:
            runs: Run folders, or folders of runs, two runs at least.
            out: The page.
        """
        from autoreid_fast.report.pages.comparison import write_comparison

        compared = runs_to_compare(runs)
        write_comparison(compared, out)
        show(f"{comparison_text(compared)}\n{out}")

    parse(command, "compare", arguments)
    return 0
