"""Trees of classified images: order, crops and errors."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from autoreid_fast.data.image_folder import ImageBatches, read_image_folder
from autoreid_fast.distributed.processes import Shard
from autoreid_fast.errors import AutoReIDError

CPU = torch.device("cpu")
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def normalised(path: Path) -> torch.Tensor:
    """Read a whole image, normalised, (3, H, W)."""
    pixels = torch.from_numpy(np.asarray(Image.open(path)).copy())
    return ((pixels / 255 - MEAN) / STD).permute(2, 0, 1)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise images of 64x64 in three classes, each with five to train on and two to validate on."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 2)):
        for name in ("bird", "cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (64, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    (root / "train" / "cat" / "notes.txt").write_text("not an image")
    return root


def test_classes_are_the_folders_in_order(tree: Path) -> None:
    train, val = read_image_folder(tree)
    assert train.classes == val.classes == ["bird", "cat", "dog"]
    assert train.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert [train.classes[label] for label in train.labels] == [path.parent.name for path in train.files]
    assert len(val.files) == 6


def test_validation_sees_the_centre_of_every_image_in_order(tree: Path) -> None:
    _, val = read_image_folder(tree)
    batches = ImageBatches(val, (56, 56), 4, CPU, workers=0)
    images, labels = (torch.cat(parts) for parts in zip(*batches.epoch(), strict=True))
    assert len(batches) == 2
    assert torch.equal(labels, val.labels)
    for image, path in zip(images, val.files, strict=True):  # 7/8 of 64 is 56: no pixel is interpolated
        torch.testing.assert_close(image, normalised(path)[:, 4:60, 4:60])


def test_training_batches_depend_only_on_seed_and_epoch(tree: Path) -> None:
    train, _ = read_image_folder(tree)

    def first(epoch: int, seed: int = 0, workers: int = 0) -> torch.Tensor:
        batches = ImageBatches(train, (24, 32), 6, CPU, workers, 0.2, seed)
        assert len(batches) == 2
        return next(iter(batches.epoch(epoch)))[0]

    before = torch.get_rng_state()
    once = first(3)
    assert torch.equal(torch.get_rng_state(), before)
    assert once.shape == (6, 3, 24, 32)
    assert torch.equal(once, first(3))
    assert torch.equal(once, first(3, workers=2))
    assert not torch.equal(once, first(4))
    assert not torch.equal(once, first(3, seed=1))


def test_an_epoch_has_each_image_once_over_all_shards(tree: Path) -> None:
    train, val = read_image_folder(tree)
    for images, size, augment in ((train, 6, 1.0), (val, 4, None)):
        whole = ImageBatches(images, (8, 8), size, CPU, 0, augment)._batches(5)
        shards = [
            ImageBatches(images, (8, 8), size, CPU, 0, augment, shard=Shard(process, 2))._batches(5)
            for process in range(2)
        ]
        assert [first + second for first, second in zip(*shards, strict=True)] == whole
        seen = [index for batch in whole for _, index in batch]
        assert len(set(seen)) == len(seen) == (12 if augment else 6)


def test_a_crop_of_all_the_area_is_the_image_or_its_mirror(tree: Path) -> None:
    """If a drawn aspect ratio does not fit, the crop is the whole image."""
    train, _ = read_image_folder(tree)
    batches = ImageBatches(train, (64, 64), 5, CPU, 0, 1.0)
    sides = []
    for images, labels in batches.epoch(0):
        for image, label in zip(images, labels, strict=True):
            for path, path_label in zip(train.files, train.labels, strict=True):
                whole = normalised(path)
                for side, expected in (("unchanged", whole), ("mirrored", whole.flip(2))):
                    if torch.allclose(image, expected, atol=1e-5):
                        assert path_label == label
                        sides.append(side)
    assert len(sides) == 15
    assert set(sides) == {"unchanged", "mirrored"}


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named(tree: Path, tmp_path: Path, workers: int) -> None:
    train, _ = read_image_folder(tree)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    images = train._replace(files=[broken] * len(train.files))
    with pytest.raises(AutoReIDError, match=r"broken\.png: cannot be read") as error:
        list(ImageBatches(images, (8, 8), 2, CPU, workers).epoch())
    assert "\n" not in str(error.value)


def test_unusable_trees(tmp_path: Path) -> None:
    with pytest.raises(AutoReIDError, match="root is not set"):
        read_image_folder(None)
    with pytest.raises(AutoReIDError, match="train: no such folder"):
        read_image_folder(tmp_path)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / split / name / "1.png")
    read_image_folder(tmp_path)
    (tmp_path / "val" / "cow").mkdir()
    with pytest.raises(AutoReIDError, match="cow: no images in it"):
        read_image_folder(tmp_path)
    (tmp_path / "val" / "dog" / "1.png").rename(tmp_path / "val" / "cow" / "1.png")
    (tmp_path / "val" / "dog").rmdir()
    with pytest.raises(AutoReIDError, match=r"same classes in train/ and val/; cow is in only one"):
        read_image_folder(tmp_path)


def test_an_unreadable_image_is_left_out_and_logged(
    tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = Path(shutil.copytree(tree, tmp_path / "images"))
    for split in ("train", "val"):
        (copy / split / "cat" / "1.png").write_bytes(b"no image")
    train, val = read_image_folder(copy)
    training = ImageBatches(train, (56, 56), 5, CPU, workers=0, augment=0.5)
    validation = ImageBatches(val, (56, 56), 1, CPU, workers=0)
    for _ in range(2):
        assert [len(labels) for _, labels in training.epoch()] == [5, 5, 5]
        assert torch.cat([labels for _, labels in validation.epoch()]).tolist() == [0, 0, 1, 2, 2]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "train/cat/1.png: cannot be read" in lines[0]
    assert "val/cat/1.png: cannot be read" in lines[1]
    (copy / "train" / "dog" / "0.png").write_bytes(b"no image")
    with pytest.raises(AutoReIDError, match=r"2 of 15 images cannot be read, more than 1%: .*cat/1\.png"):
        list(ImageBatches(train, (56, 56), 5, CPU, workers=0, augment=0.5).epoch())
