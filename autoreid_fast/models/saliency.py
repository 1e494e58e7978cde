"""Saliency maps: how much each pixel of the feature map contributes to the feature f."""

import torch
from torch import Tensor

from autoreid_fast.nas.backbone import Backbone


@torch.no_grad()
def saliency_maps(backbone: Backbone, images: Tensor) -> Tensor:
    """Compute each pixel's contribution to the spatial mean f of the feature map.

    With x_p the feature at pixel p and f = mean_p x_p, the contribution is <x_p, f> / sum_q <x_q, f>. The
    contributions of an image sum to 1; that of a pixel whose feature opposes f is negative.

    Args:
        backbone: In eval mode.
        images: (N, 3, H, W) float32, normalised as in training.

    Returns:
        (N, H', W') float32, on the CPU.
    """
    feature_map = backbone.feature_map(images).float()
    products = torch.einsum("nchw,nc->nhw", feature_map, feature_map.mean(dim=(2, 3)))
    return (products / products.sum(dim=(1, 2), keepdim=True).clamp_min(1e-12)).cpu()
