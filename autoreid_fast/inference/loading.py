"""Load a trained network from a run folder or an exported file."""

import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from autoreid_fast.devices import DeviceName, choose_device
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.inference.embedder import Embedder
from autoreid_fast.inference.formats import CARD
from autoreid_fast.inference.model_card import LICENSE, ModelCard, card_of, dimensions_of
from autoreid_fast.models.precision import in_float32
from autoreid_fast.models.registry import build_backbone
from autoreid_fast.models.reid import ReIDNetwork
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.schema import from_values, parse_json
from autoreid_fast.training.config import TrainConfig
from autoreid_fast.training.network import load_state, load_trained

OTHER_FILES = {
    ".onnx": "onnxruntime runs an .onnx",
    ".pt2": "torch.export.load reads a .pt2",
    ".pt": "a checkpoint is loaded with its run folder",
}
"""Hints for files of other kinds."""


@in_float32()
def load(source: str | os.PathLike[str], device: DeviceName = "auto", license: str = LICENSE) -> Embedder:
    """Load a trained network.

    Args:
        source: the run folder of a training, one of its checkpoints (``checkpoints/best.pt``), or a
            .safetensors file written by `export`.
        device: where to run: `auto` (CUDA if there is a GPU), `cpu`, `cuda` or `cuda:N`, which becomes
            the current CUDA device.
        license: license of a run's weights, for its model card; a file has its own.

    Raises:
        AutoReIDError: no such run or file, one without weights, with NaN or of another kind, or no such
            device.

    Examples:
        >>> import autoreid_fast
        >>> model = autoreid_fast.load("runs/train")  # doctest: +SKIP
        >>> model.embed("person.jpg").shape  # doctest: +SKIP
        torch.Size([1, 2048])
    """
    path = Path(source).expanduser()
    run = RunFolder.of(path)
    if path.is_dir() or run.path != path:
        return _from_run(run, choose_device(device), license)
    if not path.exists():
        raise AutoReIDError(
            f"{path}: no such file or folder; give a training's run folder or a .safetensors file of `export`"
        )
    if not path.is_file():  # a pipe would be waited for
        raise AutoReIDError(f"{path}: not a regular file; give a run folder or a .safetensors file")
    return _from_file(path, choose_device(device))


def _from_run(run: RunFolder, device: torch.device, license: str) -> Embedder:
    config = from_values(TrainConfig, run.recorded("train"), str(run.config))
    model = load_trained(config, run)
    return Embedder(model, card_of(model, config, run, license), device)


def _from_file(path: Path, device: torch.device) -> Embedder:
    if path.suffix != ".safetensors":
        hint = OTHER_FILES.get(path.suffix, "`autoreid-fast export RUN --format safetensors` writes one")
        raise AutoReIDError(f"{path}: not a training's run folder or a .safetensors file; {hint}")
    card, state = _read(path)
    config = card.config
    backbone = build_backbone(
        card.architecture(), config.channels, config.cells_per_block, config.last_stride
    )
    model = ReIDNetwork(backbone, card.data.identities, config.embedding_dim, config.dropout, config.tail)
    load_state(model, state, path, "not of the network in its card")
    dimensions = dimensions_of(model, card.input.height, card.input.width)
    if dimensions != card.output.dimensions:
        raise AutoReIDError(
            f"{path}: the card's output.dimensions is {card.output.dimensions}, but its network computes "
            f"{dimensions}; export it again"
        )
    return Embedder(model, card, device)


def _read(path: Path) -> tuple[ModelCard, dict[str, torch.Tensor]]:
    """Model card and weights of a .safetensors file."""
    try:
        with safe_open(path, framework="pt") as stream:
            text = (stream.metadata() or {}).get(CARD)
            state = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise AutoReIDError(f"{path}: not a readable .safetensors file ({error})") from None
    if text is None:
        raise AutoReIDError(f"{path}: has no card: it was not written by `autoreid-fast export`")
    source = f"{path}: the card"
    return from_values(ModelCard, parse_json(text, source), source), state
