"""`ops.batch_from_cache` against one image at a time in NumPy and PIL."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torch import Tensor

from autoreid_fast import ops

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def by_pil(image: np.ndarray, y: int, x: int, flip: bool, border: int) -> np.ndarray:
    """Flip, pad by ``border``, crop at (border + y, border + x), scale and normalise, as torchvision does."""
    height, width, _ = image.shape
    pil = Image.fromarray(image)
    if flip:
        pil = ImageOps.mirror(pil)
    box = (border + x, border + y, border + x + width, border + y + height)
    cropped = np.asarray(ImageOps.expand(pil, border, 0).crop(box))
    return ((cropped.astype(np.float32) / np.float32(255) - MEAN) / STD).transpose(2, 0, 1)


def arguments(height: int = 6, width: int = 5, border: int = 2, batch: int = 7) -> list[Tensor]:
    return [
        torch.randint(0, 256, (5, height, width, 3), dtype=torch.uint8),
        torch.randint(0, 5, (batch,)),
        torch.randint(-border, border + 1, (batch,)),
        torch.randint(-border, border + 1, (batch,)),
        torch.rand(batch) < 0.5,
    ]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 13), width=st.integers(1, 9), border=st.integers(0, 15), seed=st.integers(0, 100)
)
def test_equals_pil_bit_for_bit(height: int, width: int, border: int, seed: int) -> None:
    torch.manual_seed(seed)
    images, *rest = arguments(height, width, border)
    batch = ops.batch_from_cache(images, *rest)
    assert batch.shape == (7, 3, height, width)
    assert batch.dtype == torch.float32
    assert batch.permute(0, 2, 3, 1).is_contiguous()
    chosen = zip(*(each.tolist() for each in rest), strict=True)
    expected = [by_pil(images[index].numpy(), *place, border) for index, *place in chosen]
    np.testing.assert_array_equal(batch.numpy(), np.stack(expected))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_rounded_from_float32(dtype: torch.dtype) -> None:
    given = arguments()
    assert torch.equal(ops.batch_from_cache(*given, dtype=dtype), ops.batch_from_cache(*given).to(dtype))


def test_strided_arguments_and_an_empty_batch() -> None:
    images, *rest = arguments(batch=8)
    expected = ops.batch_from_cache(images, *rest)[::2]
    assert torch.equal(ops.batch_from_cache(images, *(each[::2] for each in rest)), expected)
    assert ops.batch_from_cache(images, *(each[:0] for each in rest)).shape == (0, 3, 6, 5)


def test_is_the_same_by_the_reference() -> None:
    given = arguments()
    expected = ops.batch_from_cache(*given)
    with ops.backend("reference"):
        assert torch.equal(ops.batch_from_cache(*given), expected)
