"""The ``folder`` reader: patterns, splits, and the real images of PKU-Reid."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoreid_fast.data.check import check_dataset
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.dataset import Dataset
from autoreid_fast.data.load import load_dataset
from autoreid_fast.errors import AutoReIDError

Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path, write_picture: Callable[..., Path]) -> Tree:
    """Write images with the given paths."""

    def write(*paths: str) -> Path:
        for number, path in enumerate(paths):
            write_picture(tmp_path / "set" / path, number)
        return tmp_path / "set"

    return write


def load(root: Path, pattern: str, **fields: Any) -> Dataset:
    return load_dataset(DataConfig(kind="folder", root=root, pattern=pattern, **fields))


def people(count: int, cameras: int = 2, images: int = 2) -> list[str]:
    return [
        f"{p:03d}/{c}_{i}.png"
        for p in range(1, count + 1)
        for c in range(1, cameras + 1)
        for i in range(images)
    ]


WITH_CAMERA = r"(?P<pid>\d+)/(?P<camera>\d)_\d\.png"
WITHOUT_CAMERA = r"(?P<pid>\d+)/\d_\d\.png"


class TestSplits:
    def test_splits_in_the_path(self, tree: Tree) -> None:
        root = tree(
            "train/5_c1.png", "query/7_c1.png", "gallery/7_c2.png", "gallery/-1_c1.png", "gallery/0_c1.png"
        )
        dataset = load(root, r"^(?P<split>\w+)/(?P<pid>-?\d+)_c(?P<camera>\d)")
        assert [(r.pid, r.camera) for r in (*dataset.train, *dataset.query)] == [(5, 1), (7, 1)]
        assert sorted((r.pid, r.camera) for r in dataset.gallery) == [(-1, 1), (0, 1), (7, 2)]

    def test_an_unknown_split(self, tree: Tree) -> None:
        root = tree("val/5_c1.png")
        with pytest.raises(AutoReIDError, match="the split is val: expected train, query or gallery"):
            load(root, r"^(?P<split>\w+)/(?P<pid>\d+)")

    def test_identities_are_divided_by_a_seeded_draw(self, tree: Tree) -> None:
        root = tree(*people(8))
        first = load(root, WITH_CAMERA, train_share=0.25, split_seed=3)
        assert first.train == load(root, WITH_CAMERA, train_share=0.25, split_seed=3).train
        train, test = {r.pid for r in first.train}, {r.pid for r in first.gallery}
        assert (len(train), len(test)) == (2, 6)
        assert train.isdisjoint(test)
        others = {frozenset(r.pid for r in load(root, WITH_CAMERA, split_seed=s).train) for s in range(6)}
        assert len(others) > 1
        assert load(root, WITH_CAMERA, train_identities=5).train_identities == 5

    def test_with_cameras_every_test_image_is_query_and_gallery(self, tree: Tree) -> None:
        dataset = load(tree(*people(4)), WITH_CAMERA)
        assert dataset.query == dataset.gallery
        assert len(dataset.query) == 2 * 4

    def test_camera_lists(self, tree: Tree) -> None:
        dataset = load(tree(*people(4, 3)), WITH_CAMERA, query_cameras=(1,), gallery_cameras=(2, 3))
        assert {r.camera for r in dataset.query} == {1}
        assert {r.camera for r in dataset.gallery} == {2, 3}
        assert {r.camera for r in dataset.train} == {1, 2, 3}

    def test_without_cameras_some_images_of_each_identity_are_queries(self, tree: Tree) -> None:
        dataset = load(tree(*people(6, 2, 4)), WITHOUT_CAMERA, query_share=0.25)
        assert set(Counter(r.pid for r in dataset.query).values()) == {2}
        assert set(Counter(r.pid for r in dataset.gallery).values()) == {6}
        assert {r.path for r in dataset.query}.isdisjoint(r.path for r in dataset.gallery)
        assert dataset.unmatched_queries() == ()  # every match counts
        assert dataset.query == load(tree(), WITHOUT_CAMERA, query_share=0.25).query

    def test_an_identity_with_one_image_is_gallery_only(self, tree: Tree) -> None:
        dataset = load(tree(*people(3), "004/1_0.png"), WITHOUT_CAMERA, train_identities=1)
        for pid in {r.pid for r in dataset.gallery} | {r.pid for r in dataset.query}:
            assert pid in {r.pid for r in dataset.gallery}
        singles = [r for r in (*dataset.query, *dataset.gallery) if r.pid == 4]
        assert all(r in dataset.gallery for r in singles)

    @pytest.mark.parametrize("fields", [{"train_identities": 4}, {"train_share": 0.01}])
    def test_no_identity_left(self, tree: Tree, fields: dict[str, Any]) -> None:
        with pytest.raises(AutoReIDError, match="of 4 identities to train on: expected at least 1"):
            load(tree(*people(4)), WITH_CAMERA, **fields)


class TestNumbers:
    def test_names_count_from_one_in_sorted_order(self, tree: Tree) -> None:
        root = tree("train/bob_b.png", "query/ann_a.png", "gallery/ann_b.png")
        dataset = load(root, r"^(?P<split>\w+)/(?P<pid>[a-z]+)_(?P<camera>[a-z])")
        assert [(r.pid, r.camera) for r in (*dataset.train, *dataset.query, *dataset.gallery)] == [
            (2, 2),
            (1, 1),
            (1, 2),
        ]

    def test_numbers_are_kept(self, tree: Tree) -> None:
        dataset = load(tree(*[p.replace("001/", "1501/") for p in people(3)]), WITH_CAMERA)
        assert {r.pid for r in (*dataset.train, *dataset.gallery)} == {2, 3, 1501}

    def test_people_numbered_from_zero_are_not_distractors(self, tree: Tree) -> None:
        dataset = load(tree(*[f"{p}/{c}_0.png" for p in range(4) for c in (1, 2)]), WITH_CAMERA)
        assert {r.pid for r in (*dataset.train, *dataset.gallery)} == {1, 2, 3, 4}

    def test_two_spellings_of_a_number_are_two_people(self, tree: Tree) -> None:
        dataset = load(tree(*[f"{p}/{c}_0.png" for p in ("1", "01", "2") for c in (1, 2)]), WITH_CAMERA)
        assert {r.pid for r in (*dataset.train, *dataset.gallery)} == {1, 2, 3}


class TestMalformed:
    @pytest.mark.parametrize(
        ("pattern", "message"),
        [
            (None, "data.pattern is not set"),
            (r"(?P<pid>\d+", "missing \\), unterminated subpattern"),
            (r"(\d+)/", "expected named groups pid"),
            (r"(?P<pid>\d+)(?P<view>\d)", "expected named groups pid"),
            (r"(?P<pid>person\d+)", r"none of 16 names is like data.pattern"),
        ],
    )
    def test_pattern(self, tree: Tree, pattern: str | None, message: str) -> None:
        with pytest.raises(AutoReIDError, match=message):
            load(tree(*people(4)), pattern)  # type: ignore[arg-type]

    def test_camera_lists_need_each_other_and_a_camera(self, tree: Tree) -> None:
        root = tree(*people(4))
        with pytest.raises(AutoReIDError, match=r"only data\.query_cameras is set"):
            load(root, WITH_CAMERA, query_cameras=(1,))
        with pytest.raises(AutoReIDError, match="has no group camera"):
            load(root, WITHOUT_CAMERA, query_cameras=(1,), gallery_cameras=(2,))
        with pytest.raises(
            AutoReIDError, match="query_cameras: no images of camera 9; expected some of 1, 2"
        ):
            load(root, WITH_CAMERA, query_cameras=(9,), gallery_cameras=(2,))

    def test_missing_folder_and_no_images(self, tmp_path: Path) -> None:
        with pytest.raises(AutoReIDError, match="nowhere: no such folder"):
            load(tmp_path / "nowhere", WITH_CAMERA)
        (tmp_path / "notes.txt").write_text("not an image")
        with pytest.raises(AutoReIDError, match="no images below it"):
            load(tmp_path, WITH_CAMERA)

    def test_other_files_are_ignored_and_unparsed_names_are_listed(self, tree: Tree) -> None:
        root = tree(*people(4), "cover.png", "001/.hidden_1.png")
        (root / "004" / "notes.txt").write_text("")
        (root / "empty identity 005").mkdir()
        dataset = load(root, WITH_CAMERA)
        assert dataset.unparsed == ("cover.png",)
        assert len(dataset.train) + len(dataset.gallery) == 16


def test_real_images_of_pku(shared_data: Path) -> None:
    """50 people, 2 cameras, 8 orientations: JPEG files with names in .png."""
    config = DataConfig(
        kind="folder",
        root=shared_data / "pku_reid_50" / "images",
        pattern=r"(?P<pid>\d+)/(?P<camera>\d+)_\d\.png$",
        train_identities=25,
        query_cameras=(1,),
        gallery_cameras=(2,),
        height=128,
        width=64,
    )
    report = check_dataset(config, decode_images=True)
    counts = {s: (c.images, c.identities, c.cameras) for s, c in report.splits.items()}
    assert counts == {"train": (400, 25, 2), "query": (200, 25, 1), "gallery": (200, 25, 1)}
    assert (report.unparsed, report.unmatched, report.unreadable) == ((), (), ())
