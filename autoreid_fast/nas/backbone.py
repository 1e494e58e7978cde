"""What every feature extractor is: images in, one feature vector f an image out."""

from torch import nn


class Backbone(nn.Module):
    """Images (N, 3, H, W) -> the feature f (N, ``feature_dim``) of Sec. 3.2; cells or residual layers."""

    feature_dim: int
