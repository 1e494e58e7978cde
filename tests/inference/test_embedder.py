"""Inputs of an embedder: zero images are accepted, and an error names the number of the wrong image."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from autoreid_fast.data.config import DataConfig
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.inference.embedder import Embedder
from autoreid_fast.inference.formats import CARD
from autoreid_fast.inference.loading import load
from autoreid_fast.inference.model_card import card_of
from autoreid_fast.models.registry import build_backbone
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.training.config import TrainConfig

CROP = np.zeros((8, 4, 3), np.uint8)


def embedder(tail: Any = "embedding", network: str = "resnet18") -> Embedder:
    config = TrainConfig(network=network, channels=3, tail=tail, data=DataConfig(height=64, width=32))
    model = ReIDNetwork(build_backbone(network, 3, (1, 1, 1, 1)), num_classes=3, tail=tail)
    return Embedder(model, card_of(model, config, RunFolder(Path("none"))), torch.device("cpu"))


@pytest.mark.parametrize(
    ("tail", "network"), [("embedding", "darts_v2"), ("pcb", "resnet18"), ("hpm", "resnet18")]
)
def test_no_images(tail: str, network: str) -> None:
    """A frame without a person: the same from lists, arrays and tensors."""
    model = embedder(tail, network)
    dimensions = model.embed([CROP]).shape[1]
    assert model.preprocess([]).shape == (0, 3, 64, 32)
    for nothing in ([], (), np.zeros((0, 8, 4, 3), np.uint8), torch.zeros(0, 3, 64, 32)):
        assert model.embed(nothing).shape == (0, dimensions)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_features_are_float32_under_another_default_dtype(dtype: torch.dtype) -> None:
    torch.set_default_dtype(dtype)
    try:
        model = embedder("pcb")
        features, none, no_pixels = model.embed([CROP]), model.embed([]), model.preprocess([])
    finally:
        torch.set_default_dtype(torch.float32)
    assert {features.dtype, none.dtype, no_pixels.dtype} == {torch.float32}


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (None, "embed: NoneType is not an image: a file, a PIL image or a uint8 array, or a sequence"),
        (7, "embed: int is not an image"),
        ({"b.jpg", "a.jpg"}, "embed: set is not an image.*or a sequence"),  # in which order?
        (
            [*[CROP] * 3, CROP[:0], *[CROP] * 3],
            r"image 3: .* \(0, 4, 3\), without pixels; leave out empty crops",
        ),
        ([CROP, None], "image 1: embed: NoneType is not an image"),
        ([CROP, CROP, "absent.jpg"], r"^absent\.jpg: no such file"),
    ],
)
def test_the_wrong_image_is_named_by_its_number(images: Any, message: str) -> None:
    with pytest.raises(AutoReIDError, match=message):
        embedder().embed(images, batch_size=2)


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("input", {"mean": [0.5, 0.5, 0.5]}, r"input: mean: expected \(0\.485, .*, the only one in use"),
        ("input", {"std": [1, 1, 1]}, r"input: std: expected \(0\.229, .*, the only one in use"),
        ("input", {"layout": "BGR"}, "input: layout: expected 'images .*RGB.*', the only one in use"),
        ("input", {"resize": "bicubic"}, "input: resize: expected 'bilinear, .*', the only one in use"),
        ("output", {"layout": "cosine"}, "output: layout: expected 'features .*', the only one in use"),
        ("input", {"height": 0}, "input.height: expected a value greater than 0"),
        ("input", {"width": 10**9}, "input.width: expected a value less than or equal to 10000"),
        ("output", {"dimensions": 7}, "the card's output.dimensions is 7, but its network computes"),
        ("config", {"channels": 10**9}, "config.channels: expected a value less than"),
        ("data", {"identities": -1}, "data.identities: expected a value greater"),
    ],
)
def test_cards_that_do_not_fit(tmp_path: Path, section: str, changes: dict[str, Any], message: str) -> None:
    network = embedder()
    card = network.card.model_dump(mode="json")
    card[section] |= changes
    state = {name: value.contiguous() for name, value in network.network.network.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors", {CARD: json.dumps(card)})
    with pytest.raises(AutoReIDError, match=message):
        load(tmp_path / "model.safetensors", "cpu")


def test_weights_are_not_converted(tmp_path: Path) -> None:
    network = embedder()
    network.save(tmp_path / "model.safetensors")
    load(tmp_path / "model.safetensors", "cpu")
    state = {name: value.contiguous() for name, value in network.network.network.state_dict().items()}
    name = next(iter(state))
    for dtype in (torch.complex64, torch.int32):
        wrong = state | {name: state[name].to(dtype)}
        save_file(wrong, tmp_path / "model.safetensors", {CARD: network.card.model_dump_json()})
        with pytest.raises(AutoReIDError, match=rf"{name} is {dtype}"):
            load(tmp_path / "model.safetensors", "cpu")


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    for name in ("photo.png", "model.safetensors"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(AutoReIDError, match=r"photo\.png: .*not a regular file"):
        embedder().embed(tmp_path / "photo.png")
    with pytest.raises(AutoReIDError, match=r"model\.safetensors: not a regular file"):
        load(tmp_path / "model.safetensors", "cpu")
