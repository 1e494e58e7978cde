"""Any `nn.Module` as a backbone."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from autoreid_fast.errors import AutoReIDError, describe_error
from autoreid_fast.nas.backbone import Backbone

PROBE_SIZE = (256, 128)
"""Height and width of the images that find the feature dimension of a module that does not state it."""


class PlainBackbone(Backbone):
    """Backbone around a module that maps images (N, 3, H, W) to a feature map or to features.

    Args:
        module: Returns a feature map (N, D, H', W'), or pooled features (N, D), which become a map of one
            pixel. D is its attribute ``feature_dim``; without one it is found with an image of 256 x 128
            pixels, and if the module rejects that size, it is ``num_features``, as timm's models have it.
        name: Name for error messages.

    Raises:
        AutoReIDError: D cannot be determined, or the module returns something else.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> from autoreid_fast.models.backbones.plain import PlainBackbone
        >>> backbone = PlainBackbone(nn.Conv2d(3, 16, 3, stride=8), "one_layer")
        >>> backbone.feature_dim
        16
        >>> backbone(torch.randn(2, 3, 64, 32)).shape
        torch.Size([2, 16])
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module = module
        self.name = name
        stated = getattr(module, "feature_dim", None)
        self.feature_dim = self._probe() if stated is None else _whole(stated, name)
        if stated is not None:
            check_backbone(self, name)

    def feature_map(self, images: Tensor) -> Tensor:
        features = self._map(self.module, images)
        _check_map(features, images, self.feature_dim, self.name)
        return features

    def _map(self, module: nn.Module, images: Tensor) -> Tensor:
        """Run ``module``; pooled features become a map of one pixel."""
        features = module(images)
        pooled = isinstance(features, Tensor) and features.ndim == 2
        return features[:, :, None, None] if pooled else features

    def _probe(self) -> int:
        """Find D by shapes only."""
        module = copy.deepcopy(self.module).to("meta").eval()
        try:
            with torch.no_grad():
                features = self._map(module, _probe_images())
        except Exception as error:  # a user's module may fail in any way
            num_features = getattr(self.module, "num_features", None)
            if isinstance(num_features, int):
                return num_features
            raise AutoReIDError(
                f"backbone {self.name}: its feature dimension could not be found with an image of "
                f"{PROBE_SIZE[0]} x {PROBE_SIZE[1]} ({describe_error(error)}): set an attribute feature_dim "
                "on the module"
            ) from None
        _check_map(features, _probe_images(), None, self.name)
        return features.shape[1]


def check_backbone(backbone: Backbone, name: str) -> None:
    """Check the feature map of a user's `Backbone`, by shapes only.

    Raises:
        AutoReIDError: it has no ``feature_dim``, or its map is not of that many channels, one per image.
    """
    feature_dim = _whole(getattr(backbone, "feature_dim", None), name)
    try:
        with torch.no_grad():
            features = copy.deepcopy(backbone).to("meta").eval().feature_map(_probe_images())
    except AutoReIDError:
        raise
    except Exception:  # it may need another size of image, or a real device
        return
    _check_map(features, _probe_images(), feature_dim, name)


def _probe_images() -> Tensor:
    return torch.empty(2, 3, *PROBE_SIZE, device="meta")


def _whole(feature_dim: object, name: str) -> int:
    if not isinstance(feature_dim, int) or feature_dim < 1:
        raise AutoReIDError(
            f"backbone {name}: feature_dim is {feature_dim!r}; expected the channels of its feature map"
        )
    return feature_dim


def _check_map(features: Any, images: Tensor, feature_dim: int | None, name: str) -> None:
    """Check a feature map (N, D, H', W') of ``images``; ``feature_dim``: D if it is known."""
    if not isinstance(features, Tensor) or features.ndim != 4 or features.shape[0] != images.shape[0]:
        got = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else type(features).__name__
        raise AutoReIDError(
            f"backbone {name}: returned {got} for images {tuple(images.shape)}; expected a feature map "
            f"(N, D, H, W) or features (N, D) with N = {images.shape[0]}"
        )
    if feature_dim is not None and features.shape[1] != feature_dim:
        raise AutoReIDError(
            f"backbone {name}: returned {features.shape[1]} channels, but its feature_dim is {feature_dim}: "
            "remove its classifier (timm: num_classes=0), or correct feature_dim"
        )
