"""``batch_from_cache`` in plain PyTorch: gather, flip, crop and normalise uint8 images to a float batch."""

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def batch_from_cache(
    images: Tensor, index: Tensor, y: Tensor, x: Tensor, flip: Tensor, dtype: torch.dtype = torch.float32
) -> Tensor:
    """As `ops.batch_from_cache`, with the check of the index that indexing makes."""
    _, height, width, _ = images.shape
    rows = torch.arange(height, device=images.device) + y[:, None]
    columns = torch.arange(width, device=images.device) + x[:, None]
    row_inside = (rows >= 0) & (rows < height)
    column_inside = (columns >= 0) & (columns < width)
    inside = row_inside[:, :, None] & column_inside[:, None, :]
    columns = torch.where(flip[:, None], width - 1 - columns, columns)
    rows = rows.clamp(0, height - 1)[:, :, None]
    columns = columns.clamp(0, width - 1)[:, None, :]
    pixels = images[index[:, None, None], rows, columns].masked_fill_(~inside[..., None], 0)
    mean, std = (pixels.new_tensor(each, dtype=torch.float32) for each in (IMAGENET_MEAN, IMAGENET_STD))
    return pixels.float().div_(255).sub_(mean).div_(std).to(dtype).permute(0, 3, 1, 2)
