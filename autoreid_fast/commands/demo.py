"""`demo`: the whole method on synthetic pedestrians, compared with a ResNet-18 shape of equal cost."""

import math
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from autoreid_fast.commands.data import synthesize
from autoreid_fast.commands.options import parse, show_result
from autoreid_fast.configs import AnyConfig, from_values, load_config
from autoreid_fast.data.cache import default_cache_dir
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.synthetic import SyntheticConfig
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import write_json
from autoreid_fast.models.costs import costs
from autoreid_fast.models.registry import build_backbone
from autoreid_fast.progress import console, duration
from autoreid_fast.report.draw import draw_report
from autoreid_fast.report.tensorboard import watch_search, watch_training
from autoreid_fast.report.text_tables import results_table
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.search import search
from autoreid_fast.search.config import SearchConfig
from autoreid_fast.training import train
from autoreid_fast.training.config import TrainConfig

DEMO_SET = SyntheticConfig(train_identities=40, test_identities=40, cameras=4, junk=40, distractors=60)


def run_demo(arguments: list[str]) -> int:
    """Parse and run `demo`."""
    parse(demo, "demo", arguments)
    return 0


def demo(run: Path | None = None, seed: int = 0) -> None:
    """Search, train and evaluate a network, then train a ResNet-18 shape at the same number of multiply-adds.

    Args:
        run: Run folder; an interrupted demo in it is resumed. Default: runs/demo-<date>-<time>.
        seed: Seed of everything random except the images.
    """
    begin = time.perf_counter()
    folder = run or Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}"
    if RunFolder(folder).config.exists():  # a demo's own folder holds runs and is none
        raise AutoReIDError(f"{folder} holds a run of another command: choose a new folder, or a demo's")
    images = default_cache_dir() / "synthetic-demo"
    console.print(f"drawing the synthetic pedestrians: {images}")
    synthesize(images, DEMO_SET)

    search_config = load_config(SearchConfig, "demo-search", "search")
    data = search_config.data.model_copy(update={"root": images})
    searched = _search(folder / "search", search_config.model_copy(update={"data": data, "seed": seed}))
    results = _train_both(folder, searched.genotype, searched.path, data, seed)
    write_json(folder / "metrics.json", results)
    draw_report(folder)
    show_result(results_table(results))
    show_result(f"finished in {duration(time.perf_counter() - begin)}; everything is in {folder}")


def _search(folder: Path, config: SearchConfig) -> RunFolder:
    run, config = _start_or_resume(folder, config, "search")
    with run.session():
        search(config, run, watch_search())
    return run


def _train_both(folder: Path, genotype: Path, searched: Path, data: DataConfig, seed: int) -> dict[str, Any]:
    """Metrics of the searched network and of the ResNet-18 shape, by the names to show."""
    config = load_config(TrainConfig, "demo-train", "train").model_copy(update={"data": data, "seed": seed})
    width = _width_of_equal_flops(genotype, config)
    resnet = config.model_copy(update={"network": "resnet18", "channels": width})
    return {
        "searched network": _train(folder / "searched", config.model_copy(update={"network": str(searched)})),
        f"ResNet-18 shape, width {width}": _train(folder / "resnet18", resnet),
    }


def _train(folder: Path, config: TrainConfig) -> dict[str, Any]:
    run, config = _start_or_resume(folder, config, "train")
    with run.session():
        return train(config, run, watch_training(run))


def _start_or_resume(folder: Path, config: AnyConfig, command: str) -> tuple[RunFolder, AnyConfig]:
    """Start a run with ``config``, or open the one in ``folder`` with its own config."""
    run = RunFolder(folder)
    if run.config.exists():
        return run, from_values(type(config), run.recorded(command), str(run.config))
    run.start(config, command)
    return run, config


def _width_of_equal_flops(genotype: Path, config: TrainConfig) -> int:
    """The largest width at which a ResNet-18 needs at most the multiply-adds of the searched network."""
    size = (config.data.height, config.data.width)
    budget = costs(build_backbone(genotype, config.channels, config.cells_per_block), *size).flops_G
    full = costs(build_backbone("resnet18"), *size).flops_G
    width = math.ceil(64 * math.sqrt(budget / full))  # an upper bound: the stem's cost is linear in the width
    while width > 4 and costs(build_backbone("resnet18", width), *size).flops_G > budget:
        width -= 1
    return width
