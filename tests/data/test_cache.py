"""The image cache: contents, rebuilding and errors."""

import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from autoreid_fast.data import cache as cache_module
from autoreid_fast.data.batches import relabel
from autoreid_fast.data.cache import ImageCache, default_cache_dir, open_cache
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.dataset import Dataset
from autoreid_fast.data.load import load_dataset
from autoreid_fast.errors import AutoReIDError

SIZE = 48, 24


@pytest.fixture
def dataset(market_root: Path) -> Dataset:
    return load_dataset(DataConfig(root=market_root))


@pytest.fixture
def opened(dataset: Dataset, tmp_path: Path) -> Callable[..., ImageCache]:
    """Open the cache of the gallery."""

    def open_it(share: float = 0.01, of: Dataset = dataset) -> ImageCache:
        return open_cache(of, of.gallery, *SIZE, tmp_path / "cache", share)

    return open_it


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One element per build of a cache."""
    counted: list[int] = []
    build = cache_module._build

    def counting(*arguments: object) -> None:
        counted.append(1)
        build(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(cache_module, "_build", counting)
    return counted


def by_hand(dataset: Dataset, index: int) -> np.ndarray:
    with Image.open(dataset.root / dataset.gallery[index].path) as image:
        return np.asarray(image.convert("RGB").resize((SIZE[1], SIZE[0]), Image.Resampling.BILINEAR))


def test_holds_every_image_in_order(dataset: Dataset, opened: Callable[..., ImageCache]) -> None:
    cache = opened()
    assert cache.images.shape == (11, 48, 24, 3)
    assert cache.images.dtype == np.uint8
    assert cache.records == dataset.gallery
    assert cache.unreadable == ()
    assert not cache.images.flags.writeable
    for index in range(11):
        np.testing.assert_array_equal(cache.images[index], by_hand(dataset, index))
    assert torch.equal(cache.on("cpu"), torch.from_numpy(np.array(cache.images)))
    assert cache.on("cpu") is cache.on(torch.device("cpu"))


def test_is_decoded_once(opened: Callable[..., ImageCache], builds: list[int]) -> None:
    first, second = opened(), opened()
    assert len(builds) == 1
    np.testing.assert_array_equal(first.images, second.images)
    assert [path.suffix for path in first.path.parent.iterdir()] == [".u8"]


def test_progress_counts_every_image(dataset: Dataset, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    open_cache(
        dataset, dataset.train, *SIZE, tmp_path, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(done, 9) for done in range(1, 10)]


def test_each_size_and_split_has_its_own_file(dataset: Dataset, tmp_path: Path) -> None:
    paths = {
        open_cache(dataset, records, *size, tmp_path).path
        for records in (dataset.train, dataset.query)
        for size in (SIZE, (24, 48))
    }
    assert len(paths) == 4


class TestStale:
    def test_a_changed_image_file(
        self,
        dataset: Dataset,
        opened: Callable[..., ImageCache],
        write_picture: Callable[..., Path],
        builds: list[int],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        opened()
        write_picture(dataset.root / dataset.gallery[4].path, 999, format="JPEG")
        with caplog.at_level(logging.WARNING):
            cache = opened()
        assert len(builds) == 2
        np.testing.assert_array_equal(cache.images[4], by_hand(dataset, 4))
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "the images have changed" in caplog.text

    def test_a_new_modification_time_only(
        self, dataset: Dataset, opened: Callable[..., ImageCache], builds: list[int]
    ) -> None:
        opened()
        os.utime(dataset.root / dataset.gallery[4].path, ns=(1, 1))
        opened()
        opened()
        assert len(builds) == 2

    def test_a_file_replaced_under_equal_size_and_time(
        self, dataset: Dataset, opened: Callable[..., ImageCache], builds: list[int]
    ) -> None:
        path = dataset.root / dataset.gallery[4].path
        for color in (10, 200):
            Image.new("RGB", (24, 48), (color, 0, 0)).save(path, "BMP")
            os.utime(path, ns=(1, 1))
            assert opened().images[4, 0, 0, 0] == color
        assert len(builds) == 2

    def test_a_changed_container(self, cuhk03_root: Path, tmp_path: Path, builds: list[int]) -> None:
        dataset = load_dataset(DataConfig(kind="cuhk03", root=cuhk03_root))
        open_cache(dataset, dataset.train, *SIZE, tmp_path / "cache")
        open_cache(dataset, dataset.train, *SIZE, tmp_path / "cache")
        assert len(builds) == 1
        os.utime(cuhk03_root / "cuhk-03.mat", ns=(1, 1))
        open_cache(dataset, dataset.train, *SIZE, tmp_path / "cache")
        assert len(builds) == 2

    def test_another_format(
        self, opened: Callable[..., ImageCache], builds: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened()
        monkeypatch.setattr(cache_module, "FORMAT_VERSION", 99)
        opened()
        assert len(builds) == 2


class TestCorrupt:
    @pytest.mark.parametrize("place", ["first", "last", "footer", "tail"])
    def test_one_flipped_bit(
        self,
        opened: Callable[..., ImageCache],
        builds: list[int],
        caplog: pytest.LogCaptureFixture,
        place: str,
    ) -> None:
        cache = opened()
        good = np.array(cache.images)
        content = bytearray(cache.path.read_bytes())
        position = {"first": 0, "last": good.size - 1, "footer": good.size + 20, "tail": len(content) - 1}[
            place
        ]
        content[position] ^= 1
        cache.path.write_bytes(content)
        with caplog.at_level(logging.WARNING):
            np.testing.assert_array_equal(opened().images, good)
        assert len(builds) == 2
        assert len(caplog.records) == 1 and "rebuilding" in caplog.text

    @pytest.mark.parametrize("length", [0, 10, 1000, -1])
    def test_cut_short(self, opened: Callable[..., ImageCache], builds: list[int], length: int) -> None:
        cache = opened()
        good = np.array(cache.images)
        cache.path.write_bytes(cache.path.read_bytes()[:length])
        np.testing.assert_array_equal(opened().images, good)
        assert len(builds) == 2

    def test_checksums_cover_blocks(
        self, opened: Callable[..., ImageCache], builds: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Blocks that end within an image, images that span blocks."""
        monkeypatch.setattr(cache_module, "BLOCK_BYTES", 1000)
        cache = opened()
        opened()
        assert len(builds) == 1
        content = bytearray(cache.path.read_bytes())
        content[17_500] ^= 255
        cache.path.write_bytes(content)
        opened()
        assert len(builds) == 2


class TestUnreadable:
    def spoil(self, dataset: Dataset) -> None:
        truncated = dataset.root / dataset.gallery[2].path
        truncated.write_bytes(truncated.read_bytes()[:-300])
        (dataset.root / dataset.gallery[5].path).write_text("<html>404</html>")
        (dataset.root / dataset.gallery[7].path).unlink()

    def test_named_counted_and_left_out(
        self, dataset: Dataset, opened: Callable[..., ImageCache], caplog: pytest.LogCaptureFixture
    ) -> None:
        self.spoil(dataset)
        with caplog.at_level(logging.WARNING):
            cache = opened(share=0.3)
        gone = [dataset.gallery[index] for index in (2, 5, 7)]
        assert [path for path, _ in cache.unreadable] == [record.path for record in gone]
        assert [reason.split(":")[0] for _, reason in cache.unreadable] == [
            "OSError",
            "UnidentifiedImageError",
            "FileNotFoundError",
        ]
        assert cache.records == tuple(record for record in dataset.gallery if record not in gone)
        kept = [index for index in range(11) if index not in (2, 5, 7)]
        for place, index in enumerate(kept):
            np.testing.assert_array_equal(cache.images[place], by_hand(dataset, index))
        assert "left out 3 unreadable images" in caplog.text
        assert opened(share=0.3).unreadable == cache.unreadable

    def test_too_many_are_an_error(self, dataset: Dataset, opened: Callable[..., ImageCache]) -> None:
        self.spoil(dataset)
        message = "3 of 11 images cannot be read, more than data.max_unreadable_share 0.2: "
        with pytest.raises(AutoReIDError, match=message + dataset.gallery[2].path):
            opened(share=0.2)
        opened(share=0.3)
        with pytest.raises(AutoReIDError, match="3 of 11"):  # also if the cache exists
            opened(share=0.2)

    def test_all_of_them_are_always_an_error(self, dataset: Dataset, tmp_path: Path) -> None:
        for record in dataset.query:
            (dataset.root / record.path).write_bytes(b"")
        with pytest.raises(AutoReIDError, match="4 of 4 images cannot be read"):
            open_cache(dataset, dataset.query, *SIZE, tmp_path / "cache", 1.0)
        assert list((tmp_path / "cache").iterdir()) == []

    def test_a_repaired_image_is_used_again(
        self, dataset: Dataset, opened: Callable[..., ImageCache], write_picture: Callable[..., Path]
    ) -> None:
        self.spoil(dataset)
        assert len(opened(share=0.3).records) == 8
        write_picture(dataset.root / dataset.gallery[7].path, 5, format="JPEG")
        assert len(opened(share=0.3).records) == 9

    def test_an_identity_without_images_has_no_label(
        self, dataset: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        for record in dataset.train:
            if record.pid == 7:
                (dataset.root / record.path).write_bytes(b"")
        with caplog.at_level(logging.WARNING):
            cache = open_cache(dataset, dataset.train, *SIZE, tmp_path, 0.5)
        assert relabel(cache.records).tolist() == [0, 0, 0, 1, 1, 1]
        assert "1 identities have no image left: pid 7" in caplog.text

    @pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
    def test_an_image_bomb_is_refused(
        self, dataset: Dataset, opened: Callable[..., ImageCache], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Image.new("RGB", (100, 100)).save(dataset.root / dataset.gallery[3].path, format="PNG")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 128 * 64)
        assert opened(share=0.5).unreadable == (
            (dataset.gallery[3].path, "DecompressionBombError: 100x100 pixels, more than 8192"),
        )


def test_formats_are_recognised_by_content(dataset: Dataset, opened: Callable[..., ImageCache]) -> None:
    """Gray, palette and alpha PNGs, and a JPEG with an EXIF rotation, all with Market-1501's .jpg names."""
    paths = [dataset.root / record.path for record in dataset.gallery]
    Image.new("L", (30, 60), 77).save(paths[0], format="PNG")
    Image.new("P", (30, 60), 3).save(paths[1], format="PNG")
    Image.new("RGBA", (30, 60), (9, 8, 7, 0)).save(paths[2], format="PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(paths[3]) as image:
        image.save(paths[3], format="JPEG", exif=exif)
    images = opened().images
    assert (images[0] == 77).all()
    assert (images[2] == (9, 8, 7)).all()
    np.testing.assert_array_equal(images[3], by_hand(dataset, 3))


def test_concurrent_builds(dataset: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    with ThreadPoolExecutor(4) as pool:
        caches = list(pool.map(lambda _: open_cache(dataset, dataset.gallery, *SIZE, folder), range(4)))
    for cache in caches:
        np.testing.assert_array_equal(cache.images, caches[0].images)
    assert len(list(folder.iterdir())) == 1


def test_a_failed_build_leaves_no_file(dataset: Dataset, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_cache(dataset, dataset.gallery, *SIZE, tmp_path, progress=stop)
    assert not list(tmp_path.glob("*.u8"))


def test_no_room_and_no_folder(
    dataset: Dataset, opened: Callable[..., ImageCache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AutoReIDError, match=r"cannot be made for the image cache .*; set data.cache_dir"):
        open_cache(dataset, dataset.gallery, *SIZE, tmp_path / "file")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(AutoReIDError, match=r"the image cache needs 0.0 MB, and 0.0 MB are free"):
        opened()


def test_no_records(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(AutoReIDError, match="no images to cache for market1501"):
        open_cache(replace(dataset, train=()), (), *SIZE, tmp_path)


def test_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "autoreid_fast"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache_dir() == tmp_path / "home" / ".cache" / "autoreid_fast"
