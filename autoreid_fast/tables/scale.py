"""`--scale small`: the same rows, small enough for two cores and some minutes, on synthetic pedestrians."""

import shutil
import tempfile
from pathlib import Path

from autoreid_fast.configs import AnyConfig
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.load import load_dataset
from autoreid_fast.data.synthetic import SyntheticConfig
from autoreid_fast.engine.pretrain import PretrainConfig
from autoreid_fast.engine.search_config import SearchConfig
from autoreid_fast.engine.setup import BatchConfig
from autoreid_fast.engine.train import TrainConfig

PEOPLE = SyntheticConfig(train_identities=8, test_identities=8, cameras=3, junk=4, distractors=6)
HEIGHT, WIDTH = 128, 32
BATCH = BatchConfig(identities=4, images=3)
VALIDATION_SHARE = 4
"""One of so many images of a class is for validation, where classes stand in for ImageNet's."""


def small_data(people: Path) -> DataConfig:
    """The synthetic people at a size that every network of the tables takes."""
    return DataConfig(
        kind="synthetic", root=people, height=HEIGHT, width=WIDTH, cache_dir=people.parent / "cache"
    )


def small(config: AnyConfig, data: DataConfig) -> AnyConfig:
    """``config`` at a quarter of C, half of l, and a few epochs."""
    l1, l2, l3, l4 = ((cells + 1) // 2 for cells in config.cells_per_block)  # type: ignore[attr-defined]
    changes = {"channels": config.channels // 4, "cells_per_block": (l1, l2, l3, l4)}  # type: ignore[attr-defined]
    match config:
        case SearchConfig():
            changes |= {"data": data, "epochs": 1, "embedding_dim": 32, "batch": BATCH}
        case TrainConfig():
            changes |= {"data": data, "epochs": 6, "embedding_dim": 32, "batch": BATCH}
            changes |= {"decay_epochs": (4,)}
        case PretrainConfig():
            size = {"height": HEIGHT, "width": WIDTH}
            changes |= size | {"epochs": 1, "batch_size": 16, "workers": 0, "learning_rate": 0.02}
    return config.model_copy(update=changes)


def classes_of(data: DataConfig, folder: Path) -> Path:
    """A tree of classified images, a class a person, which stands in for ImageNet; made if not there."""
    if not folder.exists():
        dataset = load_dataset(data)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            tree = Path(temporary) / "tree"
            seen: dict[int, int] = {}
            for record in dataset.train:
                seen[record.pid] = seen.get(record.pid, -1) + 1
                split = "train" if seen[record.pid] % VALIDATION_SHARE else "val"
                place = tree / split / f"{record.pid:04d}" / Path(record.path).name
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(dataset.file_of(record), place)
            tree.rename(folder)
    return folder
