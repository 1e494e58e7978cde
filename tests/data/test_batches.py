"""Batches against one image at a time in NumPy and PIL."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from autoreid_fast.data.batches import AugmentationConfig, EvalBatches, TrainBatches, relabel
from autoreid_fast.data.cache import ImageCache, open_cache
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.load import load_dataset
from autoreid_fast.data.sampler import IdentitySampler
from autoreid_fast.reference.batch_from_cache import batch_from_cache

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def twin(image: np.ndarray, y: int, x: int, flip: bool, padding: str, border: int) -> np.ndarray:
    """What the field does: flip, pad by ``border``, crop at (border + y, border + x), scale, normalise."""
    height, width, _ = image.shape
    picture = Image.fromarray(image)
    inside = Image.new("1", picture.size, 1)
    if flip:
        picture = ImageOps.mirror(picture)
    picture, inside = ImageOps.expand(picture, border, 0), ImageOps.expand(inside, border, 0)
    box = (border + x, border + y, border + x + width, border + y + height)
    cropped, kept = np.asarray(picture.crop(box)), np.asarray(inside.crop(box))
    values = (cropped.astype(np.float32) / np.float32(255) - MEAN) / STD
    if padding == "mean":
        values[~kept] = 0
    return values.transpose(2, 0, 1)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 13),
    width=st.integers(1, 9),
    border=st.integers(0, 15),
    padding=st.sampled_from(["zero", "mean"]),
    seed=st.integers(0, 100),
)
def test_reference_equals_pil_bit_for_bit(
    height: int, width: int, border: int, padding: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (5, height, width, 3), dtype=np.uint8)
    index = random.integers(0, 5, 7)
    y, x = random.integers(-border, border + 1, (2, 7))
    flip = random.random(7) < 0.5
    batch = batch_from_cache(*(torch.from_numpy(a) for a in (images, index, y, x, flip)), padding=padding)  # type: ignore[arg-type]
    assert batch.shape == (7, 3, height, width)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous()
    expected = [twin(images[i], *rest, padding, border) for i, *rest in zip(index, y, x, flip, strict=True)]
    np.testing.assert_array_equal(batch.numpy(), np.stack(expected))


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
    chosen = list(IdentitySampler(labels, 2, 2, 0).epoch(4))
    made = list(batches.epoch(4))
    assert len(made) == len(batches) == len(chosen) == 2
    for index, (images, of_batch) in zip(chosen, made, strict=True):
        assert of_batch.dtype == torch.int64
        assert of_batch.tolist() == labels[index].tolist()
        expected = [twin(cache.images[i], 0, 0, False, "zero", 0) for i in index]
        np.testing.assert_array_equal(images.numpy(), np.stack(expected))


def test_every_augmented_image_is_a_flip_and_crop_of_its_source(cache: ImageCache) -> None:
    """Each is found among all (2p + 1)^2 crops of both mirrorings, and over epochs all kinds come."""
    padding = 2
    batches = train_batches(cache, AugmentationConfig(crop_padding=padding))
    chosen = IdentitySampler(relabel(cache.records), 2, 2, 0)
    found = []
    for epoch in range(8):
        for index, (images, _) in zip(chosen.epoch(epoch), batches.epoch(epoch), strict=True):
            for source, image in zip(index, images.numpy(), strict=True):
                hits = [
                    way for way, made in crops(cache.images[source], padding) if np.array_equal(made, image)
                ]
                assert len(hits) == 1
                found.append(hits[0])
    assert {flip for _, _, flip in found} == {False, True}
    assert {y for y, _, _ in found} == {x for _, x, _ in found} == set(range(-padding, padding + 1))


def crops(image: np.ndarray, padding: int) -> Iterator[tuple[tuple[int, int, bool], np.ndarray]]:
    reach = range(-padding, padding + 1)
    for way in ((y, x, flip) for y in reach for x in reach for flip in (False, True)):
        yield way, twin(image, *way, "zero", padding)


def test_flips_and_shifts_have_the_stated_distribution(cache: ImageCache) -> None:
    """All flipped at probability 1; 400 images at 1/2 within 5 standard deviations."""
    always = train_batches(cache, AugmentationConfig(flip_probability=1, crop_padding=0))
    chosen = IdentitySampler(relabel(cache.records), 2, 2, 0)
    for index, (images, _) in zip(chosen.epoch(0), always.epoch(0), strict=True):
        expected = [twin(cache.images[i], 0, 0, True, "zero", 0) for i in index]
        np.testing.assert_array_equal(images.numpy(), np.stack(expected))
    half = train_batches(cache, AugmentationConfig(crop_padding=0))
    flipped = 0
    for epoch in range(50):
        for index, (images, _) in zip(chosen.epoch(epoch), half.epoch(epoch), strict=True):
            for source, image in zip(index, images.numpy(), strict=True):
                flipped += not np.array_equal(image, twin(cache.images[source], 0, 0, False, "zero", 0))
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


@pytest.mark.parametrize("batch_size", [1, 4, 9, 100])
def test_evaluation_batches_hold_all_images_in_order(cache: ImageCache, batch_size: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches = EvalBatches(cache, batch_size, "cpu")
        made = list(batches)
    assert len(made) == len(batches) == -(-9 // batch_size)
    expected = [twin(image, 0, 0, False, "zero", 0) for image in cache.images]
    np.testing.assert_array_equal(torch.cat(made).numpy(), np.stack(expected))
    assert torch.equal(torch.cat(list(batches)), torch.cat(made))  # they can be gone through again
