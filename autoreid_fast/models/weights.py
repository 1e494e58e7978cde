"""Weights of backbones as files: from `pretrain` or `train`, or another tool's of the same network."""

import logging
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

logger = logging.getLogger(__name__)

WRAPPERS = ("average", "state_dict", "model")
"""Keys of checkpoints that hold a state dict; the moving average of a pre-training is its result."""
PREFIXES = ("module.", "backbone.")
"""Prefixes of the backbone's names by DataParallel and by a network with a head."""
CLASSIFIERS = ("fc.", "classifier.")


def save_weights(backbone: Backbone, path: Path) -> None:
    """Write the backbone's parameters and buffers as safetensors, atomically."""
    state = _module(backbone).state_dict()
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(state))


def load_weights(backbone: Backbone, path: str | os.PathLike[str]) -> None:
    """Load a backbone from a state dict, as safetensors or saved by ``torch.save``.

    It may lie in a checkpoint, under ``average``, ``state_dict`` or ``model``, and its names may begin with
    ``module.`` or ``backbone.``. Classifiers (``fc``, ``classifier``) and what is not below
    ``backbone.`` are left out. Nothing is loaded unless all other keys and shapes match.

    Raises:
        AutoReIDError: no such file, keys or shapes that do not match, or values that are not finite; the
            message names them.
    """
    state = _read(Path(path))
    module = _module(backbone)
    own = module.state_dict()
    weights = _backbone_part(state, own)
    require_state(own, weights, str(path))
    module.load_state_dict(own | weights)
    logger.info("%s: %d tensors loaded, %d left out", path, len(weights), len(state) - len(weights))


def _backbone_part(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Select the tensors of the backbone, by the names that ``own`` has."""
    for prefix in PREFIXES:
        if not any(name.startswith(prefix) for name in own):
            inner = {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}
            state = inner or state
    return {name: state[name] for name in state if name in own or not name.startswith(CLASSIFIERS)}


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
    for key in WRAPPERS:
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            value = value[key]
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items()
    ):
        raise AutoReIDError(
            f"{path}: expected a state dict (names and tensors), or one under {' or '.join(WRAPPERS)}; got "
            f"{type(value).__name__}"
        )
    return value
