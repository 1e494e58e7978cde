"""Gather, flip, crop and normalise uint8 images in plain PyTorch: the reference of `ops.batch_from_cache`."""

import torch
from torch import Tensor

from autoreid_fast.ops.batch_from_cache.imagenet import IMAGENET_MEAN, IMAGENET_STD


def batch_from_cache(
    images: Tensor, index: Tensor, y: Tensor, x: Tensor, flip: Tensor, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Same as `ops.batch_from_cache`; indexing checks ``index``."""
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
    mean = pixels.new_tensor(IMAGENET_MEAN, dtype=torch.float32)
    std = pixels.new_tensor(IMAGENET_STD, dtype=torch.float32)
    return pixels.float().div_(255).sub_(mean).div_(std).to(dtype).permute(0, 3, 1, 2)
