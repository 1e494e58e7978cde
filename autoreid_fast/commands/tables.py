"""`tables`: run a table of the paper and compare the results with the printed figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from autoreid_fast.commands.data import synthesize
from autoreid_fast.commands.options import parse, show
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.load import load_dataset
from autoreid_fast.devices import DeviceName
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.paper.tables import TableNumber, TableSpec, load_table
from autoreid_fast.progress import console
from autoreid_fast.tables.output import as_text, write_results
from autoreid_fast.tables.plan import TableSetup, Task, choose_rows, plan
from autoreid_fast.tables.results import TableResults, collect_results
from autoreid_fast.tables.runner import run_tasks
from autoreid_fast.tables.scale import SCALES, ScaleName, people_as_classes, synthetic_data
from autoreid_fast.training.config import TrainConfig
from autoreid_fast.training.network import weights_file

Number = Annotated[TableNumber, tyro.conf.arg(help="Number of the table.")]


def run_tables(arguments: list[str]) -> int:
    """Parse and run `tables`."""
    parse(run_table, "tables", arguments)
    return 0


def run_table(
    number: Number,
    /,
    data_root: Path | None = None,
    scale: ScaleName = "full",
    seeds: tuple[int, ...] = (0,),
    rows: tuple[str, ...] = (),
    out: Path | None = None,
    jobs: int = 1,
    processes: int = 1,
    imagenet: Path | None = None,
    pretrained: dict[str, Path] = {},  # noqa: B006 (never changed)
    cache_dir: Path | None = None,
    device: DeviceName = "auto",
) -> None:
    """Run the rows of a table of the paper, and print our results beside the paper's figures.

    Each row is a run of `search` and `train` with the paper's settings, in a folder of its own. To resume
    after an interrupt or a crash, give the same command: finished rows are kept, and a row that has started
    continues after its last epoch.

    Args:
        number: Number of the table.
        data_root: Folder of the data set: Market-1501 (Tables 1 to 4), CUHK03 (5), MSMT17 (6).
        scale: full: the paper's settings. small: the same rows in minutes on synthetic pedestrians, to test
            the software only. demo: more pedestrians and longer training, some minutes per row, so that rows
            can be compared with each other.
        seeds: Run each row, including its search, with each of these seeds.
        rows: Names of rows, or shell patterns; default: all.
        out: Folder of the table; default: runs/table<N>, or runs/table<N>-<scale>.
        jobs: Number of rows to run at the same time, on different GPUs if there are enough.
        processes: Number of processes per row (torchrun).
        imagenet: Folder with train/ and val/, for tables of pre-trained networks (3, 5, 6).
        pretrained: Existing weights by network: resnet50 FILE autoreid_baseline RUN.
        cache_dir: Folder of the decoded image caches.
        device: Device to run on: auto (CUDA if available), cpu, cuda or cuda:N.
    """
    for option, value in (("jobs", jobs), ("processes", processes)):
        if value < 1:
            raise AutoReIDError(f"{option} {value}: expected a number of at least 1")
    table = load_table(number)
    chosen = choose_rows(table, rows)
    folder = (out or _default_folder(number, scale)).absolute()
    if scale != "full":
        data, imagenet = _draw_data(folder, scale)
    else:
        data = _paper_data(number, table, data_root, cache_dir)
    weights = {network: path.absolute() for network, path in pretrained.items()}
    setup = TableSetup(folder, data, imagenet.absolute() if imagenet else None, weights, device, scale)
    entries, tasks = plan(table, chosen, tuple(dict.fromkeys(seeds)), setup)
    _check_inputs(tasks)

    def write() -> TableResults:
        results = collect_results(number, table, chosen, entries, scale)
        write_results(folder, results)
        return results

    failed = run_tasks(tasks, folder, jobs, processes, on_done=write)
    show(as_text(write()))
    show(f"written to {folder}/table.txt, .md and .json")
    if failed:
        result, reason = next(iter(failed.items()))
        raise AutoReIDError(f"{len(failed)} runs failed; the first, {result.parent}: {reason}")


def _default_folder(number: TableNumber, scale: ScaleName) -> Path:
    return Path("runs") / (f"table{number}" if scale == "full" else f"table{number}-{scale}")


def _draw_data(folder: Path, scale: ScaleName) -> tuple[DataConfig, Path]:
    """Draw synthetic pedestrians, and arrange them as classes in place of ImageNet."""
    people = folder / "people"
    console.print(f"drawing the synthetic pedestrians: {people}")
    synthesize(people, SCALES[scale].people)
    data = synthetic_data(people)
    return data, people_as_classes(data, folder / "classes")


def _paper_data(
    number: TableNumber, table: TableSpec, root: Path | None, cache_dir: Path | None
) -> DataConfig:
    if root is None:
        raise AutoReIDError(
            f"table {number} needs --data-root, the folder of {table.data}; or --scale small or demo"
        )
    return DataConfig(root=root.absolute(), cache_dir=cache_dir.absolute() if cache_dir else None)


def _check_inputs(tasks: Sequence[Task]) -> None:
    """Check data sets and weights of all trainings to do, before any of them is run."""
    configs = [task.config for task in tasks if not task.result.exists()]
    trainings = [config for config in configs if isinstance(config, TrainConfig)]
    for data in dict.fromkeys(config.data for config in trainings):
        load_dataset(data)
    pretrained_here = {task.run for task in tasks if task.command == "pretrain"}
    for path in dict.fromkeys(config.pretrained for config in trainings):
        if path is not None and path not in pretrained_here and not weights_file(path).is_file():
            raise AutoReIDError(f"no weights at {path}")
