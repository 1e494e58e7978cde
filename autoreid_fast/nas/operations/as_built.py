"""Whether the layers of a module are as they were built, so that one op may compute what all of them do.

An op reads the weights of the layers that it stands for and calls none of them. Where a user has changed one
of them (another class, padding or momentum, an added bias, a hook, pruning, a frozen batch norm), the layers
themselves have to run.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.nn.modules.module import _has_any_global_hook

from autoreid_fast.ops.batch_norm.layer import SyncBatchNorm

HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
PLAIN_TENSORS = (Tensor, nn.Parameter, FakeTensor, FunctionalTensor)
"""Classes of weights that an op can read; the last two are those of `torch.compile` and `torch.export`."""


class _Layer(NamedTuple):
    """One layer as it was built."""

    kind: type[nn.Module]
    options: dict[str, Any]
    """Its public attributes, such as stride and padding."""
    children: tuple[str, ...]
    shapes: dict[str, torch.Size | None]
    """Shapes of its parameters and buffers; None for a missing bias, or for a quantised tensor."""


class AsBuilt:
    """Record of some layers of a module, made when the module is built.

    Args:
        module: The module.
        names: Names of the layers, as `nn.Module.get_submodule` reads them; "" is the module itself.

    Examples:
        >>> from torch import nn
        >>> from autoreid_fast.nas.operations.as_built import AsBuilt
        >>> module = nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8))
        >>> built = AsBuilt(module, ["0", "1"])
        >>> built.describes(module)
        True
        >>> _ = module[1].eval()  # frozen, in a module that trains
        >>> built.describes(module)
        False
    """

    def __init__(self, module: nn.Module, names: list[str]) -> None:
        self.layers = {name: _layer(module.get_submodule(name)) for name in names}

    def describes(self, module: nn.Module) -> bool:
        """Whether an op may stand for the layers: none of them is changed, and nothing listens to them."""
        return (
            not _has_any_global_hook()
            and self.changed(module) is None
            and not any(_is_hooked(module.get_submodule(name)) for name in self.layers)
        )

    def changed(self, module: nn.Module) -> str | None:
        """Name of the first layer that differs in more than values and dtypes, or None.

        A layer in another mode than ``module`` (training or evaluation) differs, too.
        """
        for name, built in self.layers.items():
            try:
                layer = module.get_submodule(name)
            except AttributeError:
                return name
            if layer.training != module.training or not _equal(layer, built):
                return name
        return None


def _layer(layer: nn.Module) -> _Layer:
    options = {
        name: value for name, value in vars(layer).items() if not name.startswith("_") and name != "training"
    }
    return _Layer(_kind(layer), options, tuple(layer._modules), _shapes(layer))


def _equal(layer: nn.Module, built: _Layer) -> bool:
    """Whether a layer is as it was built; attributes added since then do not count."""
    attributes = vars(layer)
    return (
        _kind(layer) is built.kind
        and "forward" not in attributes
        and tuple(layer._modules) == built.children
        and _shapes(layer) == built.shapes
        and all(attributes.get(name) == value for name, value in built.options.items())
    )


def _kind(layer: nn.Module) -> type[nn.Module]:
    """Class of a layer; that of a `SyncBatchNorm` is the one it replaced, since ops can share statistics."""
    return layer.replaced if type(layer) is SyncBatchNorm else type(layer)


def _is_hooked(layer: nn.Module) -> bool:
    return any(getattr(layer, name) for name in HOOKS)


def _shapes(layer: nn.Module) -> dict[str, torch.Size | None]:
    tensors = {**layer._parameters, **layer._buffers}
    return {name: None if tensor is None else _shape(tensor) for name, tensor in tensors.items()}


def _shape(tensor: Tensor) -> torch.Size | None:
    return tensor.shape if type(tensor) in PLAIN_TENSORS and not tensor.is_quantized else None
