"""Registry of backbones: the names that `--network` accepts, from the package and from users' modules."""

import inspect
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import nn

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.models.backbones.plain import PlainBackbone, check_backbone
from autoreid_fast.nas.backbone import Backbone
from autoreid_fast.nas.derived_network import DerivedNetwork
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.registry import Registry

BACKBONES: Registry[Callable[..., nn.Module]] = Registry(
    "backbone", builtin="autoreid_fast.models.backbones.builtin"
)
register_backbone = BACKBONES.register


def create_model(name: str, **options: Any) -> Backbone:
    """Create a backbone by its registered name.

    A registered function or class is called with ``options``, its own keyword arguments. Where it returns a
    plain `nn.Module`, that is wrapped in a `PlainBackbone`.

    Args:
        name: One of `list_models`.
        options: For the built-in networks ``channels`` (64), for ResNets ``last_stride`` (2), for cell
            networks ``cells_per_block`` (2, 2, 2, 2).

    Returns:
        A module of images (N, 3, H, W) -> features f (N, ``feature_dim``), with random weights in torch's
        default dtype; its method ``feature_map`` returns the map before pooling.

    Raises:
        AutoReIDError: unknown name or option, an option's value that is not allowed, or a module that is no
            backbone.

    Examples:
        >>> import torch
        >>> import autoreid_fast
        >>> model = autoreid_fast.create_model("autoreid_retrieval", channels=8)
        >>> model(torch.randn(2, 3, 128, 64)).shape
        torch.Size([2, 256])

        A backbone of one's own, in a file that ``--import`` names:

        >>> from torch import nn
        >>> from autoreid_fast.models import register_backbone
        >>> @register_backbone("strided")
        ... def strided(channels: int = 64) -> nn.Module:
        ...     "Two strided convolutions"
        ...     return nn.Sequential(
        ...         nn.Conv2d(3, channels, 3, stride=4),
        ...         nn.ReLU(),
        ...         nn.Conv2d(channels, 4 * channels, 3, stride=4),
        ...     )
        >>> autoreid_fast.create_model("strided", channels=8).feature_dim
        32
    """
    entry = BACKBONES[name]
    accepted = _parameters(entry.builder)
    accepts_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    for option, value in options.items():
        if option not in accepted and not accepts_all:
            raise AutoReIDError(
                f"backbone {name}: unknown option {option}={value!r}; expected {', '.join(accepted)}"
            )
    module = entry.build(**options)
    if not isinstance(module, nn.Module):
        raise AutoReIDError(f"backbone {name}: expected an nn.Module, got {type(module).__name__}")
    if not isinstance(module, Backbone):
        return PlainBackbone(module, name)
    if entry.own:
        check_backbone(module, name)
    return module


def list_models(pattern: str = "*") -> list[str]:
    """List the registered backbones whose names match a shell-style ``pattern``.

    Raises:
        AutoReIDError: ``pattern`` is no string.

    Examples:
        >>> import autoreid_fast
        >>> autoreid_fast.list_models("resnet*")
        ['resnet18', 'resnet34', 'resnet50']
    """
    if not isinstance(pattern, str):
        raise AutoReIDError(f"list_models: pattern is {pattern!r}; expected a string such as 'resnet*'")
    return [name for name in BACKBONES.names() if fnmatchcase(name, pattern)]


def build_backbone(
    network: str | Path | Genotype,
    channels: int = 64,
    cells_per_block: Sequence[int] = (2, 2, 2, 2),
    last_stride: int = 2,
) -> Backbone:
    """Build the backbone that a config names, with those of the options that its builder names as parameters.

    Args:
        network: A registered name, a genotype, or the path of a genotype.json.
        channels: C; the width of a ResNet.
        cells_per_block: l; ignored by ResNets.
        last_stride: Stride of a ResNet's last stage.

    Raises:
        AutoReIDError: an unknown name, an unreadable genotype, or a ``last_stride`` other than 2 for a
            network without this option.
    """
    registered = isinstance(network, str) and network in BACKBONES
    accepted = _parameters(BACKBONES[str(network)].builder) if registered else {}
    if last_stride != 2 and "last_stride" not in accepted:
        raise AutoReIDError(f"last_stride {last_stride}: {network} does not support it; use 2, or a ResNet")
    if not registered:
        return DerivedNetwork(_genotype(network), channels, cells_per_block)
    options = {"channels": channels, "cells_per_block": cells_per_block, "last_stride": last_stride}
    return create_model(str(network), **{name: options[name] for name in options if name in accepted})


def _genotype(network: str | Path | Genotype) -> Genotype:
    """Return the genotype that ``network`` is, or whose JSON file it names."""
    if isinstance(network, Genotype):
        return network
    path = Path(network)
    if path.suffix == ".json" or path.is_file():
        return Genotype.load(path)
    raise BACKBONES.unknown(str(network), "a genotype.json or ")


def _parameters(builder: Callable[..., nn.Module]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(builder).parameters)
