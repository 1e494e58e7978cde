"""`demo`: the whole method on synthetic pedestrians, beside a ResNet-18-shaped network of the same budget."""

import math
import time
from datetime import datetime
from pathlib import Path

from autoreid_fast.commands.data import synthesize
from autoreid_fast.commands.options import parse, show
from autoreid_fast.configs import AnyConfig, from_values, load_config
from autoreid_fast.data.cache import default_cache_dir
from autoreid_fast.data.synthetic import SyntheticConfig
from autoreid_fast.files import write_json
from autoreid_fast.models.costs import costs
from autoreid_fast.models.registry import build_backbone
from autoreid_fast.progress import console, duration
from autoreid_fast.report.draw import draw_report
from autoreid_fast.report.tensorboard import watch_search, watch_training
from autoreid_fast.report.text_tables import results_table
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.search.run import SearchConfig, search
from autoreid_fast.training.train import TrainConfig, train

DEMO_SET = SyntheticConfig(train_identities=40, test_identities=40, cameras=4, junk=40, distractors=60)


def run_demo(arguments: list[str]) -> int:
    """Search, train and evaluate on the embedded default data."""

    def command(run: Path | None = None, seed: int = 0) -> None:
        """Search an architecture, train it, evaluate it; then the same budget for a ResNet-18-shaped network.

        Args:
            run: Run folder; one that was interrupted is gone on with. Default: runs/demo-<date>-<time>.
            seed: Seed of everything random but the pictures.
        """
        demo(run or Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}", seed)

    parse(command, "demo", arguments)
    return 0


def demo(folder: Path, seed: int) -> None:
    """Run or go on with the demo: ``search/``, ``searched/``, ``resnet18/``, ``metrics.json``."""
    begin = time.perf_counter()
    pictures = default_cache_dir() / "synthetic-demo"
    console.print(f"drawing the synthetic pedestrians: {pictures}")
    synthesize(pictures, DEMO_SET)

    search_config = load_config(SearchConfig, "demo-search", "search")
    data = search_config.data.model_copy(update={"root": pictures})
    search_config = search_config.model_copy(update={"data": data, "seed": seed})
    run, search_config = _open(folder / "search", search_config, "search")
    with run.logging():
        search(search_config, run, watch_search())

    base = load_config(TrainConfig, "demo-train", "train").model_copy(update={"data": data, "seed": seed})
    width = _width_of_equal_flops(run.genotype, base)
    results = {}
    for name, network, channels in (
        ("searched", str(run.path), base.channels),
        ("resnet18", "resnet18", width),
    ):
        config = base.model_copy(update={"network": network, "channels": channels})
        trained, config = _open(folder / name, config, "train")
        with trained.logging():
            label = "searched network" if name == "searched" else f"ResNet-18 shape, width {width}"
            results[label] = train(config, trained, watch_training(trained))
    write_json(folder / "metrics.json", results)
    draw_report(folder)
    show(results_table(results))
    show(f"{duration(time.perf_counter() - begin)}; all of it is in {folder}")


def _open(path: Path, config: AnyConfig, command: str) -> tuple[RunFolder, AnyConfig]:
    """A new run of ``config``, or the one that was begun there, with the config it was begun with."""
    run = RunFolder(path)
    if run.config.exists():
        return run, from_values(type(config), run.recorded(command), str(run.config))
    run.start(config, command)
    return run, config


def _width_of_equal_flops(genotype: Path, config: TrainConfig) -> int:
    """The largest width at which a ResNet-18 costs no more multiply-adds than the searched network."""
    size = (config.data.height, config.data.width)
    budget = costs(build_backbone(genotype, config.channels, config.cells_per_block), *size).flops_G
    full = costs(build_backbone("resnet18"), *size).flops_G
    width = math.ceil(64 * math.sqrt(budget / full))  # an upper bound: the stem's cost shrinks more slowly
    while width > 4 and costs(build_backbone("resnet18", width), *size).flops_G > budget:
        width -= 1
    return width
