"""`ops.batch_from_cache` against one image at a time in NumPy and PIL, and its contract."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torch import Tensor

from autoreid_fast import ops
from autoreid_fast.errors import AutoReIDError

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def twin(image: np.ndarray, y: int, x: int, flip: bool, border: int) -> np.ndarray:
    """What the field does: flip, pad by ``border``, crop at (border + y, border + x), scale, normalise."""
    height, width, _ = image.shape
    picture = Image.fromarray(image)
    if flip:
        picture = ImageOps.mirror(picture)
    box = (border + x, border + y, border + x + width, border + y + height)
    cropped = np.asarray(ImageOps.expand(picture, border, 0).crop(box))
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
    expected = [twin(images[index].numpy(), *place, border) for index, *place in chosen]
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


def test_contract() -> None:
    given = arguments()
    torch.library.opcheck(torch.ops.autoreid_fast.batch_from_cache, (*given, torch.bfloat16))
    compiled = torch.compile(ops.batch_from_cache, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*given, dtype=torch.float16), ops.batch_from_cache(*given, torch.float16))
    with ops.backend("reference"):
        assert torch.equal(ops.batch_from_cache(*given), compiled(*given))


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (0, torch.zeros(2, 4, 4, 3), "uint8"),
        (0, torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "N, H, W, 3"),
        (0, torch.zeros(2, 4, 8, 3, dtype=torch.uint8)[:, :, ::2], "contiguous"),
        (1, torch.zeros(7, dtype=torch.int32), "`index` is torch.int32"),
        (2, torch.zeros(6, dtype=torch.int64), "`y` has shape .6,."),
        (4, torch.zeros(7, dtype=torch.int64), "`flip` is torch.int64"),
        (3, torch.zeros(7, dtype=torch.int64, device="meta"), "`x` is on meta"),
        (5, torch.float64, "float64"),
    ],
)
def test_bad_input_is_named(place: int, value: Tensor | torch.dtype, says: str) -> None:
    given: list[Tensor | torch.dtype] = [*arguments(), torch.float32]
    given[place] = value
    with pytest.raises(AutoReIDError, match=f"batch_from_cache: .*{says}"):
        ops.batch_from_cache(*given)  # type: ignore[arg-type]
