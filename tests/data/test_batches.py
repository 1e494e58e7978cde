"""Batches, compared with a reference in NumPy and Pillow that makes one image at a time."""

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from autoreid_fast.data import batches as batches_module
from autoreid_fast.data.batches import AugmentationConfig, EvalBatches, TrainBatches, relabel
from autoreid_fast.data.cache import ImageCache, open_cache
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.load import load_dataset
from autoreid_fast.data.sampler import IdentitySampler

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def reference(image: np.ndarray, y: int, x: int, flip: bool, border: int) -> np.ndarray:
    """Flip, pad by ``border``, crop at (border + y, border + x), scale and normalise."""
    height, width, _ = image.shape
    picture = ImageOps.mirror(Image.fromarray(image)) if flip else Image.fromarray(image)
    box = (border + x, border + y, border + x + width, border + y + height)
    cropped = np.asarray(ImageOps.expand(picture, border, 0).crop(box))
    return ((cropped.astype(np.float32) / np.float32(255) - MEAN) / STD).transpose(2, 0, 1)


@pytest.fixture
def cache(market_root: Path, tmp_path: Path) -> ImageCache:
    dataset = load_dataset(DataConfig(root=market_root))
    return open_cache(dataset, dataset.train, 48, 24, tmp_path / "cache")


def train_batches(
    cache: ImageCache, augmentation: AugmentationConfig | None = None, seed: int = 0
) -> TrainBatches:
    labels = relabel(cache.records)
    sampler = IdentitySampler(labels, 2, 2, seed)
    return TrainBatches(cache, labels, sampler, augmentation or AugmentationConfig(), "cpu", seed)


def test_without_augmentation_a_batch_is_the_sampled_images(cache: ImageCache) -> None:
    labels = relabel(cache.records)
    batches = train_batches(cache, AugmentationConfig(flip_probability=0, crop_padding=0))
    indices = list(IdentitySampler(labels, 2, 2, 0).epoch(4))
    epoch = list(batches.epoch(4))
    assert len(epoch) == len(batches) == len(indices) == 2
    for index, (images, classes) in zip(indices, epoch, strict=True):
        assert classes.dtype == torch.int64
        assert classes.tolist() == labels[index].tolist()
        expected = [reference(cache.images[i], 0, 0, False, 0) for i in index]
        np.testing.assert_array_equal(images.numpy(), np.stack(expected))


def test_every_augmented_image_is_a_flip_and_crop_of_its_original(cache: ImageCache) -> None:
    """Each is one of the (2p + 1)^2 crops of both mirrorings, and over epochs all of these occur."""
    padding = 2
    batches = train_batches(cache, AugmentationConfig(crop_padding=padding))
    chosen = IdentitySampler(relabel(cache.records), 2, 2, 0)
    augmentations = []
    for epoch in range(8):
        for index, (images, _) in zip(chosen.epoch(epoch), batches.epoch(epoch), strict=True):
            for original, image in zip(index, images.numpy(), strict=True):
                equal = [
                    augmentation
                    for augmentation, crop in crops(cache.images[original], padding)
                    if np.array_equal(crop, image)
                ]
                assert len(equal) == 1
                augmentations += equal
    assert {flip for _, _, flip in augmentations} == {False, True}
    offsets = set(range(-padding, padding + 1))
    assert {y for y, _, _ in augmentations} == {x for _, x, _ in augmentations} == offsets


def crops(image: np.ndarray, padding: int) -> Iterator[tuple[tuple[int, int, bool], np.ndarray]]:
    offsets = range(-padding, padding + 1)
    for augmentation in ((y, x, flip) for y in offsets for x in offsets for flip in (False, True)):
        yield augmentation, reference(image, *augmentation, padding)


def test_flips_and_shifts_have_the_stated_distribution(cache: ImageCache) -> None:
    """Probability 1 flips all images, 1/2 flips half of 400 within 5 standard deviations."""
    always = train_batches(cache, AugmentationConfig(flip_probability=1, crop_padding=0))
    chosen = IdentitySampler(relabel(cache.records), 2, 2, 0)
    for index, (images, _) in zip(chosen.epoch(0), always.epoch(0), strict=True):
        expected = [reference(cache.images[i], 0, 0, True, 0) for i in index]
        np.testing.assert_array_equal(images.numpy(), np.stack(expected))
    half = train_batches(cache, AugmentationConfig(crop_padding=0))
    flipped = 0
    for epoch in range(50):
        for index, (images, _) in zip(chosen.epoch(epoch), half.epoch(epoch), strict=True):
            for original, image in zip(index, images.numpy(), strict=True):
                flipped += not np.array_equal(image, reference(cache.images[original], 0, 0, False, 0))
    assert abs(flipped - 200) < 5 * 10


def test_an_epoch_is_a_pure_function_of_seed_and_number(cache: ImageCache) -> None:
    used = train_batches(cache, seed=3)
    list(used.epoch(0))
    next(iter(used.epoch(1)))
    fresh = train_batches(cache, seed=3)
    for (images, labels), (again, labels_again) in zip(used.epoch(5), fresh.epoch(5), strict=True):
        assert torch.equal(images, again)
        assert torch.equal(labels, labels_again)
    other = next(iter(train_batches(cache, seed=4).epoch(5)))[0]
    assert not torch.equal(other, next(iter(fresh.epoch(5)))[0])


def test_a_split_that_exceeds_the_devices_free_memory_stays_on_the_host(
    cache: ImageCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a GPU: copies to it are skipped, and the batches equal those of the CPU."""
    expected = list(train_batches(cache, seed=3).epoch(2))
    monkeypatch.setattr(batches_module, "to_device", lambda tensor, device: tensor)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * cache.images.nbytes - 1, 1 << 40))
    labels = relabel(cache.records)
    with caplog.at_level(logging.INFO):
        batches = TrainBatches(
            cache, labels, IdentitySampler(labels, 2, 2, 3), AugmentationConfig(), "cuda", 3
        )
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "9 images (0.0 GB) stay in host memory and are copied to cuda batch by batch"
    ]
    for (images, classes), (again, classes_again) in zip(expected, batches.epoch(2), strict=True):
        assert torch.equal(images, again)
        assert torch.equal(classes, classes_again)


@pytest.mark.parametrize("batch_size", [1, 4, 9, 100])
def test_evaluation_batches_hold_all_images_in_order(cache: ImageCache, batch_size: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches = EvalBatches(cache, batch_size, "cpu")
        all_batches = list(batches)
    assert len(all_batches) == len(batches) == -(-9 // batch_size)
    expected = [reference(image, 0, 0, False, 0) for image in cache.images]
    np.testing.assert_array_equal(torch.cat(all_batches).numpy(), np.stack(expected))
    assert torch.equal(torch.cat(list(batches)), torch.cat(all_batches))  # it can be iterated again
