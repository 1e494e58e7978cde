"""What every feature extractor is: images in, one feature vector f an image out."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """Images (N, 3, H, W) -> the feature f (N, ``feature_dim``) of Sec. 3.2; cells or residual layers."""

    feature_dim: int

    @abstractmethod
    def feature_map(self, images: Tensor) -> Tensor:
        """What is pooled: (N, ``feature_dim``, H', W'), for tails that look at parts of it."""

    def forward(self, images: Tensor) -> Tensor:
        """f: the mean of the feature map."""
        return self.feature_map(images).mean(dim=(2, 3))
