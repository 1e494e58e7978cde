"""Where a network looks: which places of its feature map the feature f comes from."""

import torch
from torch import Tensor

from autoreid_fast.nas.backbone import Backbone


@torch.no_grad()
def feature_shares(backbone: Backbone, images: Tensor) -> Tensor:
    """The share that each place of the feature map has in its spatial mean f.

    With x_p the feature at place p and f = mean_p x_p, the share is <x_p, f> / sum_q <x_q, f>: the shares of
    an image sum to 1, and a place that pulls f the other way has a negative one.

    Args:
        backbone: in eval mode.
        images: (N, 3, H, W) float32, normalised as in training.

    Returns:
        (N, h, w) float32 on the CPU.
    """
    x = backbone.feature_map(images).float()
    along = torch.einsum("nchw,nc->nhw", x, x.mean(dim=(2, 3)))
    return (along / along.sum(dim=(1, 2), keepdim=True).clamp_min(1e-12)).cpu()
