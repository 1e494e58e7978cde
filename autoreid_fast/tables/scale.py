"""`--scale small` and `demo`: the rows of a table on synthetic pedestrians, small enough for two cores."""

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
from autoreid_fast.training.config import BatchConfig, PretrainConfig, TrainConfig

ScaleName = Literal["full", "small", "demo"]
HEIGHT, WIDTH = 128, 32
VALIDATION_INTERVAL = 4
"""Where people stand in for ImageNet's classes: every fourth image of a class is for validation."""


class Scale(NamedTuple):
    """A scale below the paper's: the data set, and changes to configs in addition to smaller networks."""

    people: SyntheticConfig
    search: Mapping[str, Any]
    train: Mapping[str, Any]
    pretrain: Mapping[str, Any]
    note: str  # printed above the table


_SMALL = {"embedding_dim": 32, "batch": BatchConfig(identities=4, images=3)}
_DATA_AND_SIZE = "synthetic pedestrians, a quarter of C, half of l"
SCALES = {
    "small": Scale(
        people=SyntheticConfig(train_identities=8, test_identities=8, cameras=3, junk=4, distractors=6),
        search={"epochs": 1, **_SMALL},
        train={"epochs": 6, "decay_epochs": (4,), **_SMALL},
        pretrain={"epochs": 1, "batch_size": 16, "workers": 0, "learning_rate": 0.02},
        note=f"SMALL SCALE: {_DATA_AND_SIZE}, a few epochs. A test of the software; the values say nothing "
        "about the paper's.",
    ),
    # A search has about 130 steps here and 80,000 in the paper. In so few steps, cross entropy alone falls
    # below chance only with small steps of omega, more identities per batch, a narrow head and no dropout.
    # Alpha needs larger steps.
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
        note=f"DEMO SCALE: {_DATA_AND_SIZE}, 12 epochs of search and 24 of training. Compare rows with each "
        "other, not with the paper.",
    ),
}


def synthetic_data(people: Path) -> DataConfig:
    """Synthetic people in the folder ``people``, at a size that every network of the tables accepts."""
    return DataConfig(
        kind="synthetic", root=people, height=HEIGHT, width=WIDTH, cache_dir=people.parent / "cache"
    )


def scaled(config: AnyConfig, data: DataConfig, scale: Scale) -> AnyConfig:
    """Reduce a config to a quarter of C, half of l, ``data`` and the changes of ``scale``."""
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


def people_as_classes(data: DataConfig, folder: Path) -> Path:
    """Write the training people as classified images, one class per person, in place of ImageNet.

    Returns:
        ``folder``, which is left as it is if it exists.
    """
    if folder.exists():
        return folder
    dataset = load_dataset(data)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        tree = Path(temporary) / "tree"
        counts: dict[int, int] = {}
        for record in dataset.train:
            index = counts.get(record.pid, 0)
            counts[record.pid] = index + 1
            split = "train" if index % VALIDATION_INTERVAL else "val"
            target = tree / split / f"{record.pid:04d}" / Path(record.path).name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(dataset.file_of(record), target)
        tree.rename(folder)
    return folder
