"""Walking folders of images: links, hidden folders, pipes, extensions, odd names."""

import logging
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from autoreid_fast.data import DataConfig, load_dataset
from autoreid_fast.data.cache import open_cache
from autoreid_fast.data.image_folder import read_image_folder
from autoreid_fast.data.images import open_rgb
from autoreid_fast.data.readers.gallery import read_gallery
from autoreid_fast.data.readers.market1501 import read_layout
from autoreid_fast.data.walk import images_below, list_images
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.inference.pictures import read_rgb


def photo(path: Path, color: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 32), (color, color, color)).save(path, "PNG")
    return path


def test_each_folder_is_read_once_by_its_own_path(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        photo(tmp_path / "here" / name / "1.png")
        (tmp_path / "here" / name / "up").symlink_to("..")  # with three of them, 3^40 paths
    (tmp_path / "here" / "0-before-b").symlink_to("b")
    (tmp_path / "here" / "self").symlink_to("self")
    photo(tmp_path / "elsewhere" / "2.png")
    (tmp_path / "here" / "outside").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "here" / "outside-again").symlink_to(tmp_path / "elsewhere")
    assert images_below(tmp_path / "here") == ["a/1.png", "b/1.png", "c/1.png", "outside/2.png"]


def test_what_is_left_out_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    photo(tmp_path / "1.png")
    for hidden in (".Trash-1000", "__MACOSX", ".thumbs"):
        photo(tmp_path / hidden / "1.png")
    for name in ("a.HEIC", "b.gif", "c.gif"):
        (tmp_path / name).write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.bmp").symlink_to("/dev/zero")
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "._1.png").touch()  # macOS's second half of a file
    with caplog.at_level(logging.WARNING):
        below, directly = images_below(tmp_path), list_images(tmp_path)
    assert below == directly == ["1.png", "gone.png"]  # the link to nothing counts as unreadable
    lines = [record.getMessage().removeprefix(f"{tmp_path}: left out ") for record in caplog.records]
    assert lines[:5] == [
        "2 .gif images, which are not read (convert them to .jpg): b.gif, c.gif",
        "1 .heic images, which are not read (convert them to .jpg): a.HEIC",
        "3 hidden folders: .Trash-1000, .thumbs, __MACOSX",
        "1 hidden images: ._1.png",
        "2 pipes, sockets and devices: pipe.jpg, zero.bmp",
    ]
    assert lines[5:] == lines[:5]


def people_named(folder: Path, ending: str) -> None:
    """Two people in two cameras, as files with this ending."""
    for name in ("0001_c1", "0001_c2", "0002_c1", "0002_c2"):
        Image.new("RGB", (16, 32)).save(folder / f"{name}_1{ending}")


def test_each_reader_of_folders_reads_the_same_extensions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """.jfif and .jpe are JPEGs; formats that Pillow might decode are left out and counted, in all readers."""
    folders = [tmp_path / "market" / name for name in ("bounding_box_train", "query", "bounding_box_test")]
    folders += [tmp_path / "tree" / split / name for split in ("train", "val") for name in ("ant", "bee")]
    for folder in folders:
        folder.mkdir(parents=True)
        people_named(folder, ".jfif")
        people_named(folder, ".JPE")
        people_named(folder, ".gif")
        (folder / "0001_c1_1.avif").write_bytes(b"")
    own = DataConfig(kind="folder", root=folders[0], pattern=r"(?P<pid>\d+)_c(?P<camera>\d+)")

    def left_out(read: Callable[[], int]) -> tuple[int, list[str]]:
        caplog.clear()
        count = read()
        lines = [line for line in caplog.messages if "which are not read" in line]
        return count, [line.partition("left out ")[2].partition(",")[0] for line in lines]

    def market() -> int:
        return len(read_layout(tmp_path / "market", "m").query)

    both = ["1 .avif images", "4 .gif images"]
    with caplog.at_level(logging.WARNING):
        assert left_out(lambda: len(load_dataset(own, ()).query) * 2) == (8, both)
        assert left_out(lambda: len(read_gallery(folders[1]).gallery)) == (8, both)
        assert left_out(market) == (8, both * 3)
        tree = left_out(lambda: len(read_image_folder(tmp_path / "tree")[0].files))
        assert tree == (16, ["2 .avif images", "8 .gif images"] * 2)
    assert read_rgb(folders[0] / "0001_c1_1.jfif").size == (16, 32)
    with pytest.raises(
        AutoReIDError, match=r"0001_c1_1\.gif: .*not of a format that is read \(JPEG, .*; convert"
    ):
        read_rgb(folders[0] / "0001_c1_1.gif")


def test_pipes_and_sockets_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    monkeypatch.chdir(tmp_path)  # addresses of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        for name in ("pipe.png", "socket.png"):
            with pytest.raises(ValueError, match="not a regular file"):
                open_rgb(tmp_path / name)


def test_readers_leave_hidden_folders_and_pipes_out(tmp_path: Path) -> None:
    for name in ("1_c1", "1_c2", "2_c1", "2_c2"):
        photo(tmp_path / f"{name}.png")
        photo(tmp_path / ".ipynb_checkpoints" / f"{name}-checkpoint.png")
    (tmp_path / "everything").symlink_to(tmp_path)
    config = DataConfig(kind="folder", root=tmp_path, pattern=r"(?P<pid>\d+)_c(?P<camera>\d+)")
    dataset = load_dataset(config)
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (2, 2, 2)
    assert len(read_gallery(tmp_path).gallery) == 4


def test_market_layout_does_not_open_pipes(tmp_path: Path) -> None:
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        photo(tmp_path / folder / "0001_c1s1_000001_00.jpg")
        os.mkfifo(tmp_path / folder / "0002_c1s1_000001_00.jpg")
    dataset = read_layout(tmp_path, "m")
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (1, 1, 1)


def test_classes_are_visible_folders(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("ant", "bee"):
            photo(tmp_path / split / name / "1.png")
            photo(tmp_path / split / name / "deep" / "2.png")
            photo(tmp_path / split / name / ".cache" / "3.png")
    (tmp_path / "val" / ".hidden").mkdir()
    train, val = read_image_folder(tmp_path)
    assert train.classes == val.classes == ["ant", "bee"]
    assert len(train.files) == len(val.files) == 4


def test_names_that_are_not_utf8_are_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    original = photo(tmp_path / "photos" / "1_c1.png")
    for name in (b"1_c2_\xe9.png", b"2_c1_\xff.png", b"2_c2_\n\x1b[31m.png"):
        shutil.copy(original, os.fsencode(tmp_path / "photos") + b"/" + name)
    photo(tmp_path / "photos" / "x\x1b]0;title\x07\ny.png")
    config = DataConfig(
        kind="folder", root=tmp_path / "photos", pattern=r"(?P<pid>\d+)_c(?P<camera>\d+)", cache_dir=tmp_path
    )
    with caplog.at_level(logging.WARNING):
        dataset = load_dataset(config)
    assert all(record.getMessage().isprintable() for record in caplog.records)
    cache = open_cache(dataset, [*dataset.train, *dataset.query], 8, 4, tmp_path / "cache")
    assert len(cache.images) == 4
