"""Weights of backbones as files: from `pretrain`, or torchvision's ResNets."""

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import atomic_path, require_regular
from autoreid_fast.models.backbones.plain import PlainBackbone
from autoreid_fast.nas.backbone import Backbone
from autoreid_fast.nas.state import require_state


def save_weights(backbone: Backbone, path: Path) -> None:
    """Write the backbone's parameters and buffers as safetensors, atomically."""
    state = _module(backbone).state_dict()
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(state))


def load_weights(backbone: Backbone, path: str | os.PathLike[str]) -> None:
    """Load a file of ``save_weights``, or a state dict saved by ``torch.save``, such as torchvision's.

    The classifier ``fc`` of torchvision's ResNets is ignored. Nothing is loaded unless all keys and shapes
    match.

    Raises:
        AutoReIDError: no such file, keys or shapes that do not match, or values that are not finite; the
            message names them.
    """
    weights = {name: value for name, value in _read(Path(path)).items() if not name.startswith("fc.")}
    module = _module(backbone)
    own = module.state_dict()
    require_state(own, weights, str(path))
    module.load_state_dict(own | weights)


def _module(backbone: Backbone) -> nn.Module:
    """Return the module whose state dict a file holds: for a plain module its own, without a prefix."""
    return backbone.module if isinstance(backbone, PlainBackbone) else backbone


def _read(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        raise AutoReIDError(f"no weights at {path}: expected a .safetensors file, or one of torch.save")
    try:
        require_regular(path)
        if path.suffix == ".safetensors":
            return load_file(path)
        value: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise errors of many types
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise AutoReIDError(f"cannot read weights {path}: {reason}") from None
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items()
    ):
        raise AutoReIDError(f"{path}: expected a state dict (names and tensors), got {type(value).__name__}")
    return value
