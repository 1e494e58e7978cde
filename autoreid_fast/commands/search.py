"""`search`: search for an architecture. `derive`: derive the genotype of a search, even while it runs."""

from pathlib import Path

from autoreid_fast.commands.options import parse, run_as_argument, show, show_result, start_or_resume
from autoreid_fast.distributed.group import joined_processes, on_main
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import require_file
from autoreid_fast.nas.derivation import derive
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.report.draw import draw_report
from autoreid_fast.report.tensorboard import watch_search
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.schema import from_values
from autoreid_fast.search import search
from autoreid_fast.search.config import SearchConfig


def run_search(arguments: list[str]) -> int:
    """Search an architecture on a data set."""
    with joined_processes():
        config, run = on_main(lambda: start_or_resume("search", SearchConfig, arguments))
        with run.session():
            search(config, run, watch_search())
            on_main(lambda: draw_report(run.path))
        on_main(lambda: show_result(str(run.genotype)))
    return 0


def run_derive(arguments: list[str]) -> int:
    """Parse and run `derive`."""
    parse(derive_genotype, "derive", run_as_argument(arguments))
    return 0


def derive_genotype(run: Path, /, out: Path | None = None) -> None:
    """Derive the genotype from alpha after the last finished epoch of a search (Sec. 3.1).

    Args:
        run: --run or the first argument: run folder of a search.
        out: JSON file to write; default: print only.
    """
    if out is not None:
        require_file(out)
    genotype = genotype_of_run(RunFolder(run))
    if out is not None:
        genotype.save(out)
    show(genotype.to_json())


def genotype_of_run(run: RunFolder) -> Genotype:
    """Derive the genotype from the last checkpoint of a search.

    Raises:
        AutoReIDError: the folder holds no search, or one that has not finished an epoch.
    """
    space = from_values(SearchConfig, run.recorded("search"), str(run.config)).space
    state = run.load()
    if state is None:
        raise AutoReIDError(
            f"{run.path}: the search has not finished its first epoch; continue it with search --resume"
        )
    try:
        normal, reduce = (state["model"][f"backbone.alpha_{cell}"] for cell in ("normal", "reduce"))
    except (KeyError, TypeError) as error:
        raise AutoReIDError(f"{run.checkpoint}: not the checkpoint of a search ({error})") from None
    return derive(normal, reduce, space)
