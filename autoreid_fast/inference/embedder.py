"""A trained network in use: images of any kind in, features out."""

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from autoreid_fast.data.batches import normalized
from autoreid_fast.data.images import as_rgb, open_rgb, resized
from autoreid_fast.devices import DeviceName, choose_device, place
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import atomic_path
from autoreid_fast.inference.formats import CARD
from autoreid_fast.inference.model_card import LICENSE, ModelCard, card_of
from autoreid_fast.models.registry import build_backbone
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.models.retrieval import RetrievalNetwork
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.schema import from_values
from autoreid_fast.training.train import TrainConfig, load_state, load_trained

Picture = str | os.PathLike[str] | Image.Image | np.ndarray
"""One image: a file, a PIL image, or (H, W, 3) uint8 RGB."""
OTHER_FILES = {
    ".onnx": "onnxruntime runs an .onnx",
    ".pt2": "torch.export.load reads a .pt2",
    ".pt": "a checkpoint is loaded with its run folder",
}


class Embedder:
    """A trained network, ready to embed images; `load` makes one.

    ``card`` says what it was trained on and what it takes, ``network`` is the module itself (normalised
    images in, features of length 1 out), ``device`` is where it runs.
    """

    def __init__(self, model: ReIDNetwork, card: ModelCard, device: torch.device) -> None:
        place(model, device)
        self.network = RetrievalNetwork(model).eval()
        self.card = card
        self.device = device

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, height, width) -> (N, D), in one batch, on the CPU."""
        features: Tensor = self.network(images.to(self.device)).cpu()
        return features

    def embed(self, images: Picture | Sequence[Picture] | Tensor, batch_size: int = 64) -> Tensor:
        """The features of images: (N, D) float32 of length 1, on the CPU.

        Args:
            images: one or more files, PIL images or uint8 arrays (H, W, 3), of any size; a uint8 array
                (N, H, W, 3); or a float tensor (N, 3, height, width) that is normalised already, with the
                numbers that ``card.input`` has, as `preprocess` gives it.
            batch_size: images at once.

        Raises:
            AutoReIDError: something that is no image, or cannot be read; it names which.
        """
        if batch_size < 1:
            raise AutoReIDError(f"batch_size {batch_size}: expected a number of at least 1")
        if isinstance(images, Tensor):
            parts = [self.features(part) for part in self._checked(images).split(batch_size)]
        else:
            pictures = _pictures(images)
            starts = range(0, len(pictures), batch_size)
            parts = [self.features(self.preprocess(pictures[i : i + batch_size])) for i in starts]
        return torch.cat(parts) if parts else torch.empty(0, self.card.output.dimensions)

    def preprocess(self, images: Picture | Sequence[Picture]) -> Tensor:
        """Resized and normalised images (N, 3, height, width) float32 on ``device``: the network's input.

        What an exported ONNX or torch.export file takes as well.
        """
        size = (self.card.input.height, self.card.input.width)
        pixels = [resized(_rgb(picture), *size) for picture in _pictures(images)]
        return normalized(torch.from_numpy(np.stack(pixels)).to(self.device))

    @cached_property
    def checksum(self) -> str:
        """Hex digits that change with the weights and the input size: features of another one are stale."""
        digest = hashlib.sha256(f"{self.card.input.height} {self.card.input.width}".encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write weights and card as one safetensors file, which `load` reads."""
        state = {
            name: tensor.cpu().contiguous() for name, tensor in self.network.network.state_dict().items()
        }
        with atomic_path(path) as temporary:
            temporary.write_bytes(save(state, {CARD: self.card.model_dump_json()}))

    def _checked(self, images: Tensor) -> Tensor:
        size = (3, self.card.input.height, self.card.input.width)
        if images.ndim != 4 or images.shape[1:] != size or not images.is_floating_point():
            raise AutoReIDError(
                f"embed: a tensor {tuple(images.shape)} {images.dtype}; expected normalised images (N, "
                f"{', '.join(map(str, size))}) float32. Pixels go in as uint8 arrays (N, H, W, 3)"
            )
        return images.float()


def load(source: str | os.PathLike[str], device: DeviceName = "auto", license: str = LICENSE) -> Embedder:
    """Load a trained network: the run folder of a training, or a .safetensors file that `export` wrote.

    ``license``: of the weights of a run, for its card; a file has its own.

    Raises:
        AutoReIDError: no such run or file, one without weights or of another kind, no such device.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        run = RunFolder(path)
        config = from_values(TrainConfig, run.recorded("train"), str(run.config))
        model = load_trained(config, run)
        return Embedder(model, card_of(model, config, run, license), choose_device(device))
    if not path.exists():
        raise AutoReIDError(
            f"{path}: no such file or folder; give a training's run folder or a .safetensors file of `export`"
        )
    return _from_file(path, choose_device(device))


def _from_file(path: Path, device: torch.device) -> Embedder:
    if path.suffix != ".safetensors":
        hint = OTHER_FILES.get(path.suffix, "`autoreid-fast export RUN --format safetensors` writes one")
        raise AutoReIDError(f"{path}: no training's run folder, and no .safetensors file; {hint}")
    try:
        with safe_open(path, framework="pt") as stream:
            text = (stream.metadata() or {}).get(CARD)
            state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise AutoReIDError(f"{path}: not a readable .safetensors file ({error})") from None
    if text is None:
        raise AutoReIDError(f"{path}: has no card: it was not written by `autoreid-fast export`")
    card = from_values(ModelCard, json.loads(text), f"{path}: the card")
    config = card.config
    backbone = build_backbone(card.source(), config.channels, config.cells_per_block, config.last_stride)
    model = ReIDNetwork(backbone, card.data.identities, config.embedding_dim, config.dropout, config.tail)
    load_state(model, state, f"{path}: not of the network in its card")
    return Embedder(model, card, device)


def _pictures(images: Picture | Sequence[Picture]) -> Sequence[Picture]:
    """A sequence of single images."""
    if isinstance(images, str | os.PathLike | Image.Image):
        return [images]
    if isinstance(images, np.ndarray) and images.ndim == 3:
        return [images]
    return list(images)


def _rgb(picture: Any) -> Image.Image:
    if isinstance(picture, np.ndarray):
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise AutoReIDError(
                f"embed: an array {picture.shape} {picture.dtype}; expected RGB pixels (H, W, 3) uint8"
            )
        picture = Image.fromarray(picture)
    if isinstance(picture, Image.Image):
        try:
            return as_rgb(picture)
        except (ValueError, OSError) as error:  # PIL reads a file's pixels when they are needed
            raise AutoReIDError(f"embed: {picture}: {error}") from None
    if not isinstance(picture, str | os.PathLike):
        raise AutoReIDError(
            f"embed: {type(picture).__name__} is no image; expected a file, a PIL image or a uint8 array"
        )
    path = Path(picture).expanduser()
    if path.is_dir():
        raise AutoReIDError(
            f"{path} is a folder: give its images, {path}/* on a command line, "
            f"sorted(Path({str(path)!r}).iterdir()) in Python"
        )
    try:
        return open_rgb(path)
    except FileNotFoundError:
        raise AutoReIDError(f"{path}: no such file") from None
    except Exception as error:  # a decoder fails on broken bytes in ways of its own
        raise AutoReIDError(f"{path}: not an image that can be read ({error})") from None
