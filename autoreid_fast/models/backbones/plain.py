"""Any `nn.Module` as a backbone."""

import copy

import torch
from torch import Tensor, nn

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.backbone import Backbone

PROBE_SIZE = (256, 128)
"""Height and width of the image that finds the feature dimension of a module that does not state it."""


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
        self.feature_dim = stated if isinstance(stated, int) else self._probe()

    def feature_map(self, images: Tensor) -> Tensor:
        features = self._run(self.module, images)
        if features.shape[1] != self.feature_dim:
            raise AutoReIDError(
                f"backbone {self.name}: returned {features.shape[1]} channels, but its feature_dim is "
                f"{self.feature_dim}: remove its classifier (timm: num_classes=0), or correct feature_dim"
            )
        return features

    def _run(self, module: nn.Module, images: Tensor) -> Tensor:
        features = module(images)
        if not isinstance(features, Tensor) or features.ndim not in (2, 4):
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise AutoReIDError(
                f"backbone {self.name}: returned {got} for images {tuple(images.shape)}; expected a feature "
                "map (N, D, H, W) or features (N, D)"
            )
        return features if features.ndim == 4 else features[:, :, None, None]

    def _probe(self) -> int:
        """Find D by shapes only, on the meta device."""
        module = copy.deepcopy(self.module).to("meta").eval()
        image = torch.empty(1, 3, *PROBE_SIZE, device="meta")
        try:
            with torch.no_grad():
                return self._run(module, image).shape[1]
        except AutoReIDError:
            raise
        except Exception as error:  # a user's module may fail in any way
            num_features = getattr(self.module, "num_features", None)
            if isinstance(num_features, int):
                return num_features
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise AutoReIDError(
                f"backbone {self.name}: its feature dimension could not be found with an image of "
                f"{PROBE_SIZE[0]} x {PROBE_SIZE[1]} ({reason}): set an attribute feature_dim on the module"
            ) from None
