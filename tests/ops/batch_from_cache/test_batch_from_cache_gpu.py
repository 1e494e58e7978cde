"""`ops.batch_from_cache` on an NVIDIA GPU: the CPU's bits, and batches of a split that does not fit."""

from pathlib import Path

import numpy as np
import pytest
import torch

from autoreid_fast import ops
from autoreid_fast.data import cache as cache_module
from autoreid_fast.data.batches import AugmentationConfig, TrainBatches
from autoreid_fast.data.cache import ImageCache
from autoreid_fast.data.sampler import IdentitySampler

pytest.importorskip("triton", reason="triton is not installed")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


def test_the_native_kernel_is_what_runs() -> None:
    backends = {op.op: op.backend for op in ops.status().ops if op.device == "cuda"}
    assert backends["batch_from_cache"] == "native"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("height", "width"), [(384, 128), (13, 7), (1, 1)])
def test_the_bits_are_the_cpus(height: int, width: int, dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, (50, height, width, 3), dtype=torch.uint8)
    given = [torch.randint(0, 50, (16,)), *torch.randint(-10, 11, (2, 16)), torch.rand(16) < 0.5]
    expected = ops.batch_from_cache(images, *given, dtype=dtype)
    found = ops.batch_from_cache(images.cuda(), *(each.cuda() for each in given), dtype=dtype)
    assert torch.equal(found.cpu(), expected)
    assert found.stride() == expected.stride()


def test_an_index_beyond_the_images_gives_nan() -> None:
    images = torch.zeros(2, 4, 4, 3, dtype=torch.uint8, device="cuda")
    still = torch.zeros(3, dtype=torch.int64, device="cuda")
    index = torch.tensor([1, 2, -1], device="cuda")
    assert ops.batch_from_cache(images, index, still, still, still.bool()).isnan().any(1).tolist() == [
        [[bad] * 4] * 4 for bad in (False, True, True)
    ]


@pytest.mark.parametrize("share", [1.0, 0.0])
def test_batches_are_the_cpus_wherever_the_images_lie(
    share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "DEVICE_FRACTION", share)
    images = np.memmap(tmp_path / "images", np.uint8, "w+", 0, (12, 9, 5, 3))
    images[:] = np.random.default_rng(0).integers(0, 256, images.shape)
    labels = torch.arange(4).repeat_interleave(3)
    made = [
        [
            (batch.cpu(), of_batch.cpu())
            for batch, of_batch in TrainBatches(
                ImageCache(tmp_path, images, (), ()),
                labels,
                IdentitySampler(labels, 2, 2, 0),
                AugmentationConfig(crop_padding=2),
                device,
                0,
            ).epoch(0)
        ]
        for device in ("cpu", "cuda")
    ]
    for (batch, of_batch), (expected, expected_labels) in zip(*reversed(made), strict=True):
        assert torch.equal(batch, expected)
        assert torch.equal(of_batch, expected_labels)
