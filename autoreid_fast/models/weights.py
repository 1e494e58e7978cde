"""Weights of backbones as files: what a pre-training leaves, and torchvision's ResNets."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import atomic_path
from autoreid_fast.nas.backbone import Backbone


def save_weights(backbone: Backbone, path: Path) -> None:
    """Write the backbone's parameters and buffers as safetensors, atomically."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in backbone.state_dict().items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(state))


def load_weights(backbone: Backbone, path: str | os.PathLike[str]) -> None:
    """Load what ``save_weights`` wrote, or a state dict of torchvision's saved by ``torch.save``.

    The classifier ``fc`` of torchvision's ResNets is left out. Nothing is loaded unless every key and shape
    fits. Raises AutoReIDError, naming the file and the keys.
    """
    weights = {name: value for name, value in _read(Path(path)).items() if not name.startswith("fc.")}
    own = backbone.state_dict()
    # Weights saved before torch 0.4.1 have no batch counters; nothing here reads them.
    missing = [key for key in own if key not in weights and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in weights if key not in own]
    if missing or unexpected:
        problems = [f"missing {_first(missing)}"] * bool(missing)
        problems += [f"unexpected {_first(unexpected)}"] * bool(unexpected)
        raise AutoReIDError(f"{path}: not the weights of this network: {'; '.join(problems)}")
    for key, value in weights.items():
        if value.shape != own[key].shape:
            raise AutoReIDError(
                f"{path}: {key} has shape {tuple(value.shape)}, this network needs {tuple(own[key].shape)}"
            )
    backbone.load_state_dict(own | weights)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise AutoReIDError(f"no weights at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        value: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise AutoReIDError(f"cannot read weights {path}: {reason}") from None
    if not isinstance(value, dict) or not all(isinstance(tensor, Tensor) for tensor in value.values()):
        raise AutoReIDError(
            f"{path}: expected a state dict (names and tensors), found {type(value).__name__}"
        )
    return value


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
