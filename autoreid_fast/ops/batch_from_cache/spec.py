"""`OpSpec` of `batch_from_cache`."""

from typing import Any

import torch
from torch import Tensor

from autoreid_fast.ops.arguments import Arguments, Choice, Limit, TensorArgument
from autoreid_fast.ops.batch_from_cache import reference
from autoreid_fast.ops.sampling import Draw
from autoreid_fast.ops.spec import OpSpec

MAX_IMAGE_VALUES = 2**31 - 4097
"""Largest H * W * 3: the kernel's last tile must end within int32."""

BATCH_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

ARGUMENTS = Arguments(
    "batch_from_cache",
    (
        TensorArgument("images", ("N", "H", "W", 3), (torch.uint8,), contiguous=True),
        TensorArgument("index", ("B",), (torch.int64,)),
        TensorArgument("y", ("B",), (torch.int64,)),
        TensorArgument("x", ("B",), (torch.int64,)),
        TensorArgument("flip", ("B",), (torch.bool,)),
        Choice("dtype", BATCH_DTYPES),
    ),
    limits=(Limit("H*W", maximum=MAX_IMAGE_VALUES // 3, hint="use smaller images"),),
    may_be_zero=("B",),
)


def _sample(draw: Draw) -> dict[str, Any]:
    count, height, width, batch = draw.size(1, 5), draw.size(1, 13), draw.size(1, 9), draw.size(1, 7)
    return {
        "images": draw.integers(0, 255, count, height, width, 3).to(torch.uint8),
        "index": draw.integers(0, count - 1, batch),
        "y": draw.integers(-3, 3, batch),
        "x": draw.integers(-3, 3, batch),
        "flip": draw.flags(batch),
        "dtype": draw.dtype,
    }


def _fake(images: Tensor, index: Tensor, y: Tensor, x: Tensor, flip: Tensor, dtype: torch.dtype) -> Tensor:
    _, height, width, channels = images.shape
    return images.new_empty((index.shape[0], height, width, channels), dtype=dtype).permute(0, 3, 1, 2)


BATCH_FROM_CACHE = OpSpec(
    name="batch_from_cache",
    schema="(Tensor images, Tensor index, Tensor y, Tensor x, Tensor flip, ScalarType dtype) -> Tensor",
    reference=reference.batch_from_cache,
    fake=_fake,
    arguments=ARGUMENTS,
    sample=_sample,
    dtypes=BATCH_DTYPES,
    family=("batch_from_cache", "gather_normalized"),
    triton="autoreid_fast.kernels.batch_from_cache",
    benchmark="batch_from_cache",
)
