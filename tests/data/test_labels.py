"""People, cameras and images as users name and store them: names, pid 0, layouts, grey levels, rotations."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autoreid_fast.data.check import check_dataset
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.images import open_rgb
from autoreid_fast.data.load import load_dataset
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.inference.pictures import read_rgb

Write = Callable[..., Path]


def folder(root: Path, pattern: str, **fields: object) -> DataConfig:
    return DataConfig(kind="folder", root=root, pattern=pattern, **fields)


def test_names_are_kept_and_junk_stays_junk_beside_them(tmp_path: Path, write_picture: Write) -> None:
    for path in (
        "train/eve/a",
        "train/0007/a",
        "query/ann/a",
        "gallery/ann/b",
        "gallery/-1/c",
        "gallery/00/d",
    ):
        write_picture(tmp_path / f"{path}.png")
    dataset = load_dataset(folder(tmp_path, r"(?P<split>train|query|gallery)/(?P<pid>[^/]+)/"))
    assert dataset.pid_names == {1: "0007", 2: "ann", 3: "eve"}
    assert {record.pid for record in dataset.train} == {1, 3}
    assert sorted(record.pid for record in dataset.gallery) == [-1, 0, 2]


def test_a_split_is_a_whole_name(tmp_path: Path, write_picture: Write) -> None:
    for path in ("train/1/a", "query/2/a", "old_query/2/a", "gallery/2/b", "x/gallery/2/c"):
        write_picture(tmp_path / f"{path}.png")
    dataset = load_dataset(folder(tmp_path, r"(?P<split>train|query|gallery)/(?P<pid>\d+)/"))
    assert [record.path for record in dataset.query] == ["query/2/a.png"]
    assert [record.path for record in dataset.gallery] == ["gallery/2/b.png", "x/gallery/2/c.png"]
    assert dataset.unparsed == ("old_query/2/a.png",)


def test_a_set_to_test_on_only(tmp_path: Path, write_picture: Write) -> None:
    for pid in range(1, 4):
        for camera in (1, 2):
            write_picture(tmp_path / f"{pid}_c{camera}.png", pid)
    for choice in ({"train_share": 0}, {"train_identities": 0}):
        config = folder(tmp_path, r"(?P<pid>\d+)_c(?P<camera>\d+)", **choice)
        assert load_dataset(config, ("query", "gallery")).query_identities == 3
        assert not check_dataset(config).failure
        with pytest.raises(AutoReIDError, match="no images for the train split"):
            load_dataset(config)


def test_people_counted_from_zero_in_the_layout_of_market(market_root: Path, write_picture: Write) -> None:
    for path in (market_root / "bounding_box_test").glob("0000_*"):
        path.unlink()
    write_picture(market_root / "bounding_box_train" / "0000_c3s1_000001_00.jpg")
    dataset = load_dataset(DataConfig(root=market_root))
    assert dataset.train_identities == 4
    assert dataset.pid_names == {1: "0", 2: "1", 3: "2", 4: "3", 8: "7", 11: "10"}
    assert {record.pid for record in dataset.gallery} == {-1, 2, 4}


@pytest.mark.parametrize(
    "name", ["{}_c{}_f0046182.jpg", "{}_c{}_07.png", "{}_c00{}_00030600_0.jpg", "{}_c{}s1_1_0.JPG"]
)
def test_other_sets_in_the_layout_of_market(tmp_path: Path, write_picture: Write, name: str) -> None:
    for split, pids in {"bounding_box_train": (5, 6), "query": (8,), "bounding_box_test": (8,)}.items():
        for pid in pids:
            camera = 2 if split == "query" else 1
            write_picture(tmp_path / split / name.format(f"{pid:04d}", camera))
    dataset = load_dataset(DataConfig(root=tmp_path))
    assert (len(dataset.train), dataset.query[0].camera, len(dataset.unmatched_queries())) == (2, 2, 0)


def test_lists_of_other_systems(msmt17_root: Path) -> None:
    config = DataConfig(kind="msmt17", root=msmt17_root)
    expected = load_dataset(config)
    for path in msmt17_root.glob("list_*.txt"):
        text = path.read_text().replace("/", "\\").replace("\n", "\r\n")
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    dataset = load_dataset(config)
    assert (dataset.train, dataset.query, dataset.unparsed) == (expected.train, expected.query, ())


def test_lists_that_name_the_folder(msmt17_root: Path) -> None:
    """The list's own folder is left out; a line that names the other half's is not read."""
    config = DataConfig(kind="msmt17", root=msmt17_root)
    expected = load_dataset(config)
    train, test = (next(msmt17_root.glob(f"*{half}*/")).name for half in ("train", "test"))
    for name, folder in {"query": test, "gallery": test, "train": train}.items():
        path = msmt17_root / f"list_{name}.txt"
        path.write_text("".join(f"{folder}/{line}\n" for line in path.read_text().splitlines()))
    assert load_dataset(config).gallery == expected.gallery
    assert load_dataset(config).unparsed == ()

    line = (msmt17_root / "list_train.txt").read_text().splitlines()[0]
    with (msmt17_root / "list_gallery.txt").open("a") as stream:
        stream.write(f"{line}\n")
    dataset = load_dataset(config)
    assert dataset.gallery == expected.gallery
    assert dataset.unparsed == (f"list_gallery.txt: {line}",)

    (msmt17_root / "list_gallery.txt").write_text(f"{line}\n")
    empty = r"no images for the gallery split of .*; names that cannot be parsed: 1 \(list_gallery"
    with pytest.raises(AutoReIDError, match=empty):
        load_dataset(config)


def test_a_root_that_is_a_level_off_or_packed(market_root: Path) -> None:
    for root in (market_root.parent, market_root / "query"):
        with pytest.raises(AutoReIDError, match=f"did you mean {market_root}"):
            load_dataset(DataConfig(root=root))
    packed = market_root / "query" / "Market.zip"
    packed.write_bytes(b"PK")
    with pytest.raises(AutoReIDError, match="unpack an archive first"):
        load_dataset(DataConfig(root=packed))
    with pytest.raises(AutoReIDError, match=r"unpack .*Market\.zip first"):
        load_dataset(DataConfig(root=packed.with_suffix("")))


def examples_of(config: DataConfig) -> list[str]:
    """The lines of a report that show how names are understood."""
    return [line for line in check_dataset(config).table().splitlines() if " -> pid " in line]


def test_the_report_shows_how_names_are_understood(market_root: Path) -> None:
    """The first, the middle and the last image of each split; of all where there are fewer."""
    train, test = "train: bounding_box_train/", "gallery: bounding_box_test/"
    assert examples_of(DataConfig(root=market_root)) == [
        f"{train}0002_c1s1_002051_01.jpg -> pid 2, camera 1",
        f"{train}0007_c2s1_007052_02.jpg -> pid 7, camera 2",
        f"{train}0010_c6s1_0010056_06.jpg -> pid 10, camera 6",
        "query: query/0001_c1s1_001151_00.jpg -> pid 1, camera 1",
        "query: query/0003_c1s1_003151_00.jpg -> pid 3, camera 1",
        "query: query/0003_c2s1_003152_00.jpg -> pid 3, camera 2",
        f"{test}-1_c1s1_000401_03.jpg -> pid -1, camera 1",
        f"{test}0001_c1s2_001251_01.jpg -> pid 1, camera 1",
        f"{test}0003_c3s2_003253_03.jpg -> pid 3, camera 3",
    ]
    synthetic = examples_of(DataConfig(kind="synthetic", root=market_root))
    assert synthetic == examples_of(DataConfig(root=market_root))


def test_examples_of_lists_and_of_one_file(msmt17_root: Path, cuhk03_root: Path) -> None:
    msmt17 = examples_of(DataConfig(kind="msmt17", root=msmt17_root))
    assert [line.rpartition("/")[2] for line in msmt17] == [
        "0000_000_01_0303morning_0001_0.jpg -> pid 1, camera 1",
        "0002_000_01_0303morning_0001_0.jpg -> pid 3, camera 1",
        "0002_009_15_0303morning_0015_9.jpg -> pid 3, camera 15",
        "0000_000_01_0303morning_0001_0.jpg -> pid 1, camera 1",
        "0001_000_12_0303morning_0012_0.jpg -> pid 2, camera 12",
        "0000_001_02_0303morning_0002_1.jpg -> pid 1, camera 2",
        "0000_002_01_0303morning_0001_2.jpg -> pid 1, camera 1",
        "0001_001_13_0303morning_0013_1.jpg -> pid 2, camera 13",
    ]
    assert examples_of(DataConfig(kind="cuhk03", root=cuhk03_root)) == [
        "train: labeled/1_001_1_01.png -> pid 1, camera 1",
        "train: labeled/1_001_2_06.png -> pid 1, camera 2",
        "train: labeled/1_002_1_03.png -> pid 2, camera 1",
        "query: labeled/2_001_1_01.png -> pid 3, camera 1",
        "query: labeled/2_002_1_04.png -> pid 4, camera 1",
        "gallery: labeled/2_001_2_06.png -> pid 3, camera 2",
        "gallery: labeled/2_001_2_07.png -> pid 3, camera 2",
        "gallery: labeled/2_002_2_09.png -> pid 4, camera 2",
    ]


def test_examples_of_a_folder_tell_names_beside_their_numbers(tmp_path: Path) -> None:
    for name in ("anna/door_1", "ben/hall_2", "ben/door_3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    config = DataConfig(
        kind="folder", root=tmp_path, pattern=r"(?P<pid>\w+)/(?P<camera>[a-z]+)_", train_share=0
    )
    assert examples_of(config)[:3] == [
        "query: anna/door_1.png -> pid 1 (anna), camera 1 (door)",
        "query: ben/door_3.png -> pid 2 (ben), camera 1 (door)",
        "query: ben/hall_2.png -> pid 2 (ben), camera 2 (hall)",
    ]


@pytest.mark.parametrize(("dtype", "largest"), [("<u2", 65535), (">u2", 65535), ("<f4", 1)])
def test_grey_levels_of_more_than_8_bits(tmp_path: Path, dtype: str, largest: int) -> None:
    levels = np.arange(256).reshape(16, 16)
    path = tmp_path / "grey.tif"
    Image.fromarray((levels / 255 * largest).astype(dtype)).save(path)
    np.testing.assert_array_equal(np.asarray(open_rgb(path))[:, :, 1], levels)


def test_grey_levels_of_another_range_are_refused(tmp_path: Path) -> None:
    for name, levels in {"f.tif": np.full((8, 8), 7, "<f4"), "i.tif": np.full((8, 8), 7, "<i4")}.items():
        Image.fromarray(levels).save(tmp_path / name)
        with pytest.raises(ValueError, match="grey levels"):
            open_rgb(tmp_path / name)


def test_photos_are_turned_for_an_embedder_and_sets_stay_as_they_are(tmp_path: Path) -> None:
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, :12] = 255
    path, exif = tmp_path / "photo.png", Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    Image.fromarray(pixels).save(path, exif=exif)
    upright = np.rot90(pixels, -1)
    np.testing.assert_array_equal(np.asarray(open_rgb(path)), pixels)
    for picture in (path, Image.open(path)):
        np.testing.assert_array_equal(np.asarray(read_rgb(picture)), upright)
