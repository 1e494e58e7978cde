"""A batch made of the uint8 image cache: gather, flip, crop and normalise in one op."""

import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops import contract, triton_kernels
from autoreid_fast.ops.batch_from_cache import reference as twin

MAX_IMAGE_VALUES = 2**31 - 4097
"""Of H * W * 3: the last tile's end must be an int32."""


def batch_from_cache(
    images: Tensor, index: Tensor, y: Tensor, x: Tensor, flip: Tensor, dtype: torch.dtype = torch.float32
) -> Tensor:
    """A batch of B images, each mirrored, shifted and normalised.

    Pixel (i, j) of image b is pixel (i + y_b, j + x_b) of ``images[index_b]``, which is mirrored first
    where ``flip_b`` says so; beyond the border it is black before it is normalised, as the field pads. So
    flip, padding by p and a random crop to the old size are y and x in [-p, p].

    A value v of channel c becomes (v / 255 - mean_c) / std_c, three float32 operations in this order,
    with ImageNet's mean (0.485, 0.456, 0.406) and standard deviation (0.229, 0.224, 0.225): bit for bit
    what torchvision's ToTensor and Normalize give, on every device.

    Args:
        images: (N, H, W, 3) uint8, contiguous; all arguments are on its device.
        index: (B,) int64 in [0, N). Not looked at by the host: beyond N an IndexError of torch on the CPU, an
            image of NaN on CUDA.
        y: (B,) int64, rows.
        x: (B,) int64, columns.
        flip: (B,) bool.
        dtype: of the batch; float32, or float16 or bfloat16 rounded from it.

    Returns:
        (B, 3, H, W) in `torch.channels_last`.

    Raises:
        AutoReIDError: a wrong shape, dtype, device or layout.
    """
    _check(images, index, y, x, flip, dtype)
    arguments = (images, index, y, x, flip, dtype)
    if contract.reference_forced():
        return twin.batch_from_cache(*arguments)
    made: Tensor = torch.ops.autoreid_fast.batch_from_cache(*arguments)
    return made


def _check(images: Tensor, index: Tensor, y: Tensor, x: Tensor, flip: Tensor, dtype: torch.dtype) -> None:
    if images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape or images.dtype != torch.uint8:
        raise AutoReIDError(
            f"batch_from_cache: images are {tuple(images.shape)} {images.dtype}; expected (N, H, W, 3) uint8 "
            "without a 0"
        )
    if not images.is_contiguous():
        raise AutoReIDError("batch_from_cache: images are not contiguous: call images.contiguous() once")
    if images[0].numel() > MAX_IMAGE_VALUES:
        raise AutoReIDError(
            f"batch_from_cache: an image of {tuple(images.shape[1:])} has more than {MAX_IMAGE_VALUES} values"
        )
    for name, each, wanted in (
        ("index", index, torch.int64),
        ("y", y, torch.int64),
        ("x", x, torch.int64),
        ("flip", flip, torch.bool),
    ):
        if each.shape != (index.numel(),) or each.dtype != wanted or each.device != images.device:
            raise AutoReIDError(
                f"batch_from_cache: {name} is {tuple(each.shape)} {each.dtype} on {each.device}; expected "
                f"(B,) {wanted}, one for each of {index.numel()} in index, on {images.device} as images"
            )
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise AutoReIDError(f"batch_from_cache: dtype is {dtype}; it is float32, float16 or bfloat16")


def _fake(images: Tensor, index: Tensor, y: Tensor, x: Tensor, flip: Tensor, dtype: torch.dtype) -> Tensor:
    _, height, width, channels = images.shape
    return images.new_empty((index.shape[0], height, width, channels), dtype=dtype).permute(0, 3, 1, 2)


contract.define(
    "batch_from_cache",
    "(Tensor images, Tensor index, Tensor y, Tensor x, Tensor flip, ScalarType dtype) -> Tensor",
    twin.batch_from_cache,
    _fake,
)
triton_kernels.lay("batch_from_cache", "batch_from_cache")
