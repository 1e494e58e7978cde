"""Where a network looks: which places of its last feature map the feature f comes from."""

import torch
from torch import Tensor, nn

from autoreid_fast.nas.backbone import Backbone

STAGES = ("block", "layer")  # how cell networks and ResNets call them


@torch.no_grad()
def feature_shares(backbone: Backbone, images: Tensor) -> Tensor | None:
    """The share that each place of the last stage's output has in its spatial mean f.

    With x_p the feature at place p and f = mean_p x_p, the share is <x_p, f> / sum_q <x_q, f>: the shares of
    an image sum to 1, and a place that pulls f the other way has a negative one.

    Args:
        backbone: in eval mode; None comes back where it has no stages.
        images: (N, 3, H, W) float32, normalised as in training.

    Returns:
        (N, h, w) float32 on the CPU.
    """
    stages = [child for name, child in backbone.named_children() if name.startswith(STAGES)]
    if not stages:
        return None
    last = stages[-1]
    outputs: list[Tensor] = []
    layer = last[-1] if isinstance(last, nn.ModuleList | nn.Sequential) else last
    handle = layer.register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        backbone(images)
    finally:
        handle.remove()
    x = outputs[-1].float()
    along = torch.einsum("nchw,nc->nhw", x, x.mean(dim=(2, 3)))
    return (along / along.sum(dim=(1, 2), keepdim=True).clamp_min(1e-12)).cpu()
