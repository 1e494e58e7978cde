"""Batches from the uint8 image cache: gather, flip, crop and normalise in one op."""

import torch
from torch import Tensor

from autoreid_fast.ops.batch_from_cache.imagenet import IMAGENET_MEAN, IMAGENET_STD
from autoreid_fast.ops.batch_from_cache.spec import ARGUMENTS, BATCH_FROM_CACHE, MAX_IMAGE_VALUES
from autoreid_fast.ops.contract import run

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "MAX_IMAGE_VALUES", "batch_from_cache"]


def batch_from_cache(
    images: Tensor, index: Tensor, y: Tensor, x: Tensor, flip: Tensor, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Gather a batch of B images, each mirrored, shifted and normalised.

    Pixel (i, j) of image b is pixel (i + y_b, j + x_b) of ``images[index_b]``, which is mirrored first if
    ``flip_b`` is True. Pixels beyond the border are black before normalisation. So flipping, padding by p
    and a random crop to the old size is y and x drawn from [-p, p].

    A value v of channel c becomes (v / 255 - mean_c) / std_c, three float32 operations in this order,
    with ImageNet's mean (0.485, 0.456, 0.406) and standard deviation (0.229, 0.224, 0.225). On every
    device the result is bit for bit that of torchvision's ToTensor and Normalize.

    Args:
        images: (N, H, W, 3) uint8, contiguous; all tensors are on its device.
        index: (B,) int64 in [0, N). The host does not read it: an index beyond N is torch's IndexError on
            the CPU, and an image of NaN on CUDA.
        y: (B,) int64, rows.
        x: (B,) int64, columns.
        flip: (B,) bool.
        dtype: of the batch: float32, or float16 or bfloat16 rounded from it.

    Returns:
        (B, 3, H, W) in `torch.channels_last`.

    Raises:
        AutoReIDError: a wrong shape, dtype, device or layout.

    Examples:
        >>> import torch
        >>> from autoreid_fast import ops
        >>> images = torch.randint(0, 256, (10, 384, 128, 3), dtype=torch.uint8)
        >>> index = torch.tensor([7, 3])
        >>> shift = torch.zeros(2, dtype=torch.int64)
        >>> ops.batch_from_cache(images, index, shift, shift, flip=torch.tensor([True, False])).shape
        torch.Size([2, 3, 384, 128])
    """
    ARGUMENTS.check(images=images, index=index, y=y, x=x, flip=flip, dtype=dtype)
    batch: Tensor = run(BATCH_FROM_CACHE, images, index, y, x, flip, dtype)
    return batch
