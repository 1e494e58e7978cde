"""Interface of every backbone: images in, one feature vector f per image out."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """Images (N, 3, H, W) -> the feature f (N, ``feature_dim``) of Sec. 3.2."""

    feature_dim: int
    """Channels of the feature map, and so the size of f."""

    @abstractmethod
    def feature_map(self, images: Tensor) -> Tensor:
        """Return the feature map before pooling, (N, ``feature_dim``, H', W')."""

    def forward(self, images: Tensor) -> Tensor:
        """Return f, the spatial mean of the feature map."""
        return self.feature_map(images).mean(dim=(2, 3))
