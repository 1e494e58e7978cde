"""``batch_from_cache`` in plain PyTorch: gather, flip, crop and normalise uint8 images to a float batch."""

from typing import Literal

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def batch_from_cache(
    images: Tensor,
    index: Tensor,
    y: Tensor,
    x: Tensor,
    flip: Tensor,
    padding: Literal["zero", "mean"] = "zero",
) -> Tensor:
    """A batch of B images, each mirrored, shifted and normalised.

    Pixel (i, j) of image b is pixel (i + y_b, j + x_b) of ``images[index_b]``, which is mirrored first
    where ``flip_b`` says so; beyond the border it is ``padding``: "zero" is a black pixel, as the field
    pads (its image is padded before it is normalised), "mean" is the mean pixel, 0 after normalising.
    So flip, padding by p and a random crop to the old size are y and x in [-p, p].

    A value v of channel c becomes (v / 255 - mean_c) / std_c, three float32 operations in this order,
    with ImageNet's mean (0.485, 0.456, 0.406) and standard deviation (0.229, 0.224, 0.225): bit for bit
    what torchvision's ToTensor and Normalize give.

    Args:
        images: (N, H, W, 3) uint8.
        index: (B,) int64 in [0, N).
        y: (B,) int64, rows.
        x: (B,) int64, columns.
        flip: (B,) bool.
        padding: what lies beyond the border.

    Returns:
        (B, 3, H, W) float32, contiguous.
    """
    _, height, width, _ = images.shape
    rows = torch.arange(height, device=images.device) + y[:, None]
    columns = torch.arange(width, device=images.device) + x[:, None]
    row_inside = (rows >= 0) & (rows < height)
    column_inside = (columns >= 0) & (columns < width)
    inside = row_inside[:, :, None] & column_inside[:, None, :]
    columns = torch.where(flip[:, None], width - 1 - columns, columns)
    rows = rows.clamp(0, height - 1)[:, :, None]
    columns = columns.clamp(0, width - 1)[:, None, :]
    pixels = images[index[:, None, None], rows, columns].permute(0, 3, 1, 2).float().contiguous()

    inside = inside[:, None]
    if padding == "zero":
        pixels = pixels.masked_fill_(~inside, 0)
    mean = torch.tensor(IMAGENET_MEAN, device=images.device)[:, None, None]
    std = torch.tensor(IMAGENET_STD, device=images.device)[:, None, None]
    batch = pixels.div_(255).sub_(mean).div_(std)
    if padding == "mean":
        batch = batch.masked_fill_(~inside, 0)
    return batch
