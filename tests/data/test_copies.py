"""Files that are in both train and test, whatever their names."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from autoreid_fast.data import DataConfig, Dataset, ImageRecord
from autoreid_fast.data.check import check_dataset
from autoreid_fast.data.copies import SAMPLE_BYTES, copies_in_both


def of_files(root: Path, train: dict[str, bytes], test: dict[str, bytes]) -> Dataset:
    """A data set of these files; the first half of the test files are queries."""
    for name, content in (train | test).items():
        (root / name).write_bytes(content)
    sides = [tuple(ImageRecord(name, 1, 1) for name in side) for side in (train, test)]
    half = len(sides[1]) // 2
    return Dataset("d", root, sides[0], sides[1][:half], sides[1][half:], lambda record: None)  # type: ignore[arg-type, return-value]


def test_files_are_compared_by_all_of_their_bytes(tmp_path: Path) -> None:
    """Equal sizes are not enough, nor is an equal middle; the name and the split do not matter."""
    long = bytes(range(256)) * (SAMPLE_BYTES // 64)
    dataset = of_files(
        tmp_path,
        train={"a": b"person", "b": b"street", "c": long, "d": long[:-1] + b"x", "e": b"", "f": b"twice"},
        test={
            "q": b"avenue",
            "r": b"person",
            "s": b"y" + long[1:],
            "t": b"",
            "u": long,
            "v": b"twice",
            "w": b"twice",
        },
    )
    assert copies_in_both(dataset) == {"a": "r", "c": "u", "f": "v"}


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    dataset = of_files(
        tmp_path, {"a": b"1", "gone": b"2", "pipe.jpg": b"3"}, {"q": b"2", "r": b"3", "link": b"0"}
    )
    (tmp_path / "gone").unlink()
    (tmp_path / "pipe.jpg").unlink()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("a")
    assert copies_in_both(dataset) == {"a": "link"}
    odd = replace(dataset, gallery=(ImageRecord("of a reader\0", 1, 1), ImageRecord("x" * 300, 1, 1)))
    assert copies_in_both(odd) == {}


def test_images_of_one_file_are_compared_by_name(tmp_path: Path) -> None:
    container = tmp_path / "all.mat"
    records = [ImageRecord(f"labeled/{number}", 1, 1) for number in range(4)]
    dataset = replace(
        of_files(tmp_path, {}, {}),
        train=tuple(records[:3]),
        query=(records[1],),
        gallery=(records[3],),
        container=container,
    )
    assert copies_in_both(dataset) == {"labeled/1": "labeled/1"}


def test_check_names_them(market_root: Path) -> None:
    copy = market_root / "bounding_box_train" / "0002_c3s1_000001_00.jpg"
    shutil.copy(min((market_root / "query").glob("0003*")), copy)
    pair = "bounding_box_train/0002_c3s1_000001_00.jpg = query/0003_c1s1_003151_00.jpg"
    config = DataConfig(root=market_root)
    assert f"files in both train and test: 1 ({pair})" in check_dataset(config).table()
    copy.unlink()
    assert "files in both train and test: 0\n" in check_dataset(config).table()
