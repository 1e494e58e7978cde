"""`tables`: a table of the paper, run row by row, ours beside the paper's."""

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
from autoreid_fast.paper.tables import TableNumber, load_table
from autoreid_fast.progress import console
from autoreid_fast.tables.plan import Task, Where, chosen_rows, plan
from autoreid_fast.tables.results import as_text, results, write_results
from autoreid_fast.tables.runner import run_tasks
from autoreid_fast.tables.scale import SCALES, ScaleName, classes_of, synthetic_data
from autoreid_fast.training.network import weights_file
from autoreid_fast.training.train import TrainConfig


def run_tables(arguments: list[str]) -> int:
    """Run or go on with a table of the paper."""
    number_help = tyro.conf.arg(help="The table of the paper.")

    def command(
        number: Annotated[TableNumber, number_help],
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
        """Run the rows of a table of the paper, or go on with them; print the paper's figures beside ours.

        Each row is a run of `search` and `train` with the paper's numbers, in a folder of its own. Killed at
        any moment, the same command goes on: finished rows are kept, and a row that was begun goes on from
        its last epoch.

        Args:
            number: The table of the paper.
            data_root: Folder of the data set: Market-1501 (Tables 1 to 4), CUHK03 (5), MSMT17 (6).
            scale: full: the paper's; small: the same rows in minutes on synthetic pedestrians, which checks
                the machinery and nothing else; demo: on more of them and for longer, so that rows can be
                compared, some minutes a row.
            seeds: Each row is run with each of these, its search included.
            rows: Names of rows, shell patterns allowed; default: all.
            out: Folder of the table; default: runs/table<N>, or runs/table<N>-<scale>.
            jobs: Rows at a time, each on GPUs of its own where there are enough.
            processes: Processes of each row (torchrun).
            imagenet: Folder with train/ and val/, for tables of pre-trained networks (3, 5, 6).
            pretrained: Weights that are there already, by network: resnet50 FILE autoreid_baseline RUN.
            cache_dir: Folder of the decoded image caches.
            device: Where to run; auto takes CUDA where there is one.
        """
        for name, value in (("jobs", jobs), ("processes", processes)):
            if value < 1:
                raise AutoReIDError(f"{name} {value}: expected a number of at least 1")
        table = load_table(number)
        chosen = chosen_rows(table, rows)
        name = f"table{number}" if scale == "full" else f"table{number}-{scale}"
        folder = (out or Path("runs") / name).absolute()
        if scale != "full":
            data = synthetic_data(folder / "people")
            console.print(f"drawing the synthetic pedestrians: {folder / 'people'}")
            synthesize(folder / "people", SCALES[scale].people)
            imagenet = classes_of(data, folder / "classes")
        elif data_root is None:
            raise AutoReIDError(
                f"table {number} needs --data-root, the folder of {table.data}; or --scale small or demo"
            )
        else:
            data = DataConfig(
                root=data_root.absolute(), cache_dir=cache_dir.absolute() if cache_dir else None
            )
        weights = {network: path.absolute() for network, path in pretrained.items()}
        where = Where(folder, data, imagenet.absolute() if imagenet else None, weights, device, scale)
        cells, tasks = plan(table, chosen, tuple(dict.fromkeys(seeds)), where)
        _check_inputs(tasks)

        def write() -> None:
            write_results(folder, results(number, table, chosen, cells, scale))

        failed = run_tasks(tasks, folder, jobs, processes, write)
        write()
        show(as_text(results(number, table, chosen, cells, scale)))
        show(f"written to {folder}/table.txt, .md and .json")
        if failed:
            result, reason = next(iter(failed.items()))
            raise AutoReIDError(f"{len(failed)} runs failed, {result.parent} first: {reason}")

    parse(command, "tables", arguments)
    return 0


def _check_inputs(tasks: Sequence[Task]) -> None:
    """Whether the data sets and the weights of what is still to run are there, before any of it is run."""
    to_do = [task.config for task in tasks if not task.result.exists()]
    trainings = [config for config in to_do if isinstance(config, TrainConfig)]
    for data in dict.fromkeys(config.data for config in trainings):
        load_dataset(data)
    made = {task.run for task in tasks if task.command == "pretrain"}
    for pretrained in dict.fromkeys(config.pretrained for config in trainings):
        if pretrained is not None and pretrained not in made and not weights_file(pretrained).is_file():
            raise AutoReIDError(f"no weights at {pretrained}")
