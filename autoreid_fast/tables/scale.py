"""`--scale small` and `demo`: the same rows, small enough for two cores, on synthetic pedestrians."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from autoreid_fast.configs import AnyConfig
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.load import load_dataset
from autoreid_fast.data.synthetic import SyntheticConfig
from autoreid_fast.search.config import AlphaConfig, OmegaConfig, SearchConfig
from autoreid_fast.training.pretrain import PretrainConfig
from autoreid_fast.training.setup import BatchConfig
from autoreid_fast.training.train import TrainConfig

ScaleName = Literal["full", "small", "demo"]
HEIGHT, WIDTH = 128, 32
VALIDATION_SHARE = 4
"""One of so many images of a class is for validation, where classes stand in for ImageNet's."""


class Scale(NamedTuple):
    """Who is drawn, and what is changed of each search, training and pre-training beside C and l."""

    people: SyntheticConfig
    search: Mapping[str, Any]
    train: Mapping[str, Any]
    pretrain: Mapping[str, Any]
    header: str
    """What a reader must know of the figures."""


_FEW = {"embedding_dim": 32, "batch": BatchConfig(identities=4, images=3)}
_SYNTHETIC = "synthetic pedestrians, a quarter of C, half of l"
SCALES = {
    "small": Scale(
        people=SyntheticConfig(train_identities=8, test_identities=8, cameras=3, junk=4, distractors=6),
        search={"epochs": 1, **_FEW},
        train={"epochs": 6, "decay_epochs": (4,), **_FEW},
        pretrain={"epochs": 1, "batch_size": 16, "workers": 0, "learning_rate": 0.02},
        header=f"SMALL SCALE: {_SYNTHETIC}, a few epochs. This checks the machinery; the figures say "
        "nothing about the paper's.",
    ),
    # Some 130 steps of search, where the paper makes 80,000: in so few, cross entropy alone comes below
    # chance only with small steps of omega, more identities a batch, a narrow head and no dropout.
    # Alpha takes larger steps.
    "demo": Scale(
        people=SyntheticConfig(train_identities=40, test_identities=40, cameras=4, junk=40, distractors=60),
        search={
            "epochs": 12,
            "omega": OmegaConfig(learning_rate=0.01),
            "alpha": AlphaConfig(learning_rate=0.1, decay_epochs=(9,)),
            "batch": BatchConfig(identities=8, images=2),
            "embedding_dim": 64,
            "dropout": 0.0,
        },
        train={"epochs": 24, "decay_epochs": (16, 21)},
        pretrain={"epochs": 12, "batch_size": 16, "workers": 0, "learning_rate": 0.02},
        header=f"DEMO SCALE: {_SYNTHETIC}, 12 epochs of search and 24 of training. Rows can be compared with "
        "each other, not with the paper's.",
    ),
}


def synthetic_data(people: Path) -> DataConfig:
    """The synthetic people at a size that every network of the tables takes."""
    return DataConfig(
        kind="synthetic", root=people, height=HEIGHT, width=WIDTH, cache_dir=people.parent / "cache"
    )


def scaled(config: AnyConfig, data: DataConfig, scale: Scale) -> AnyConfig:
    """``config`` at a quarter of C and half of l, with what ``scale`` changes."""
    l1, l2, l3, l4 = ((cells + 1) // 2 for cells in config.cells_per_block)  # type: ignore[attr-defined]
    changes = {"channels": config.channels // 4, "cells_per_block": (l1, l2, l3, l4)}  # type: ignore[attr-defined]
    match config:
        case SearchConfig():
            changes |= {"data": data, **scale.search}
        case TrainConfig():
            changes |= {"data": data, **scale.train}
        case PretrainConfig():
            changes |= {"height": HEIGHT, "width": WIDTH, **scale.pretrain}
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
