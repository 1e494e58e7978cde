"""Which data set, where it lies, and at what size it is read."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from autoreid_fast.schema import Config


class DataConfig(Config):
    """A data set on disk and the size its images are cached at."""

    kind: Literal["market1501", "cuhk03", "msmt17", "folder", "synthetic"] = Field(
        "market1501",
        description="Layout of the data set. The paper searches on Market-1501 and trains and evaluates on "
        "the first three; synthetic is the output of `data synth`, laid out as Market-1501.",
    )
    root: Path | None = Field(
        None,
        description="Folder that holds the release as unpacked (the folder with bounding_box_train/ ...).",
    )
    height: int = Field(384, gt=0, description="Image height in pixels. Paper: 384.")
    width: int = Field(128, gt=0, description="Image width in pixels. Paper: 128.")
    distractors: Path | None = Field(
        None, description="market1501: folder of the 500k distractors' images, added to the gallery."
    )
    boxes: Literal["labeled", "detected"] = Field(
        "labeled", description="cuhk03: boxes drawn by hand or by a detector. The paper reports both."
    )
    pattern: str | None = Field(
        None,
        description="folder: regular expression searched in each image's path relative to root, with named "
        "groups pid, optionally camera, optionally split (train, query or gallery).",
    )
    train_share: float = Field(
        0.5, gt=0, lt=1, description="folder without split: share of the identities to train on."
    )
    train_identities: int | None = Field(
        None, gt=0, description="folder without split: number of identities to train on; beats train_share."
    )
    query_cameras: tuple[int, ...] | None = Field(
        None, description="folder without split: test images of these cameras are the queries."
    )
    gallery_cameras: tuple[int, ...] | None = Field(
        None, description="folder without split: test images of these cameras are the gallery."
    )
    query_share: float = Field(
        0.25,
        gt=0,
        lt=1,
        description="folder without split and cameras: share of each test identity's images to query.",
    )
    split_seed: int = Field(0, ge=0, description="folder without split: seed of the split.")
    cache_dir: Path | None = Field(
        None,
        description="Folder of the decoded image caches; default $XDG_CACHE_HOME/autoreid_fast or "
        "~/.cache/autoreid_fast.",
    )
    max_unreadable_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Unreadable images are named, counted and left out; a larger share of them is an error.",
    )
