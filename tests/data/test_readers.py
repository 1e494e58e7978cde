"""Readers of the released data sets: correct and damaged layouts."""

import logging
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from autoreid_fast.data.check import check_dataset
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.dataset import ImageRecord
from autoreid_fast.data.load import load_dataset
from autoreid_fast.errors import AutoReIDError


def labels(records: tuple[ImageRecord, ...]) -> list[tuple[int, int]]:
    return sorted((record.pid, record.camera) for record in records)


class TestMarket1501:
    def test_reads_every_split(self, market_root: Path) -> None:
        dataset = load_dataset(DataConfig(root=market_root))
        assert labels(dataset.train) == [(p, c) for p in (2, 7, 10) for c in (1, 2, 6)]
        assert labels(dataset.query) == [(1, 1), (1, 2), (3, 1), (3, 2)]
        assert labels(dataset.gallery) == [
            *[(-1, 1), (-1, 3), (0, 1), (0, 2), (0, 6)],
            *[(p, c) for p in (1, 3) for c in (1, 2, 3)],
        ]
        assert dataset.unparsed == ()
        assert (dataset.train_identities, dataset.query_identities, dataset.cameras) == (3, 2, 4)
        for record in (*dataset.train, *dataset.query, *dataset.gallery):
            assert dataset.read_image(record).size == (64, 128)
            assert f"_c{record.camera}s" in record.path
            assert dataset.file_of(record).is_file()

    def test_junk_and_distractors_are_not_trained_on(self, market_root: Path) -> None:
        train = market_root / "bounding_box_train"
        source = next(train.glob("*.jpg"))
        for name in ("-1_c1s1_000401_03.jpg", "0000_c1s1_000401_03.jpg"):
            (train / name).write_bytes(source.read_bytes())
        dataset = load_dataset(DataConfig(root=market_root))
        assert len(dataset.train) == 9
        assert dataset.train_identities == 3

    def test_500k_distractors_join_the_gallery(
        self, market_root: Path, write_picture: Callable[..., Path]
    ) -> None:
        images = market_root.parent / "distractors" / "images"
        for number, name in enumerate(("0000_c1s1_000001_01.jpg", "whatever.jpg")):
            write_picture(images / name, number)
        plain = load_dataset(DataConfig(root=market_root))
        extended = load_dataset(DataConfig(root=market_root, distractors=images))
        added = extended.gallery[len(plain.gallery) :]
        assert extended.gallery[: len(plain.gallery)] == plain.gallery
        assert labels(added) == [(0, 0), (0, 0)]
        assert [extended.read_image(record).size for record in added] == [(64, 128)] * 2
        with pytest.raises(AutoReIDError, match="nowhere: no such folder"):
            load_dataset(DataConfig(root=market_root, distractors=images / "nowhere"))

    def test_an_unparsed_name_is_listed(self, market_root: Path, caplog: pytest.LogCaptureFixture) -> None:
        source = next((market_root / "query").glob("*.jpg"))
        (market_root / "query" / "holiday.jpg").write_bytes(source.read_bytes())
        with caplog.at_level(logging.WARNING):
            dataset = load_dataset(DataConfig(root=market_root))
        assert dataset.unparsed == ("query/holiday.jpg",)
        assert len(dataset.query) == 4
        assert "left out 1 names that cannot be parsed: query/holiday.jpg" in caplog.text

    def test_no_name_can_be_parsed(self, market_root: Path) -> None:
        for path in market_root.glob("*/*.jpg"):
            path.rename(path.with_name(path.name.replace("_c", "_x")))
        with pytest.raises(AutoReIDError, match=r"none of 24 names is like 0001_c1s1_001051_00.jpg"):
            load_dataset(DataConfig(root=market_root))

    def test_missing_folder(self, market_root: Path) -> None:
        (market_root / "query").rename(market_root / "queries")
        with pytest.raises(AutoReIDError, match=r"no query in it; expected bounding_box_train/"):
            load_dataset(DataConfig(root=market_root))
        with pytest.raises(AutoReIDError, match=r"no such folder; expected bounding_box_train/"):
            load_dataset(DataConfig(root=market_root / "elsewhere"))
        with pytest.raises(AutoReIDError, match=r"data.root is not set"):
            load_dataset(DataConfig())

    def test_empty_split(self, market_root: Path) -> None:
        for path in (market_root / "query").iterdir():
            path.unlink()
        with pytest.raises(AutoReIDError, match="no images for the query split of market1501"):
            load_dataset(DataConfig(root=market_root))

    def test_a_query_without_a_match_is_listed(
        self, market_root: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The gallery has person 3 from camera 1 only: the query from camera 1 has no match."""
        for path in (market_root / "bounding_box_test").glob("0003_c[23]*"):
            path.unlink()
        with caplog.at_level(logging.WARNING):
            dataset = load_dataset(DataConfig(root=market_root))
        assert [(r.pid, r.camera) for r in dataset.unmatched_queries()] == [(3, 1)]
        assert "1 queries without a match: query/0003_c1s1_003151_00.jpg" in caplog.text

    def test_synthetic_has_the_same_layout(self, market_root: Path) -> None:
        synthetic = load_dataset(DataConfig(kind="synthetic", root=market_root))
        assert synthetic.name == "synthetic"
        assert synthetic.gallery == load_dataset(DataConfig(root=market_root)).gallery


class TestCUHK03:
    @pytest.mark.parametrize("boxes", ["labeled", "detected"])
    def test_reads_splits_and_pixels(self, cuhk03_root: Path, boxes: str) -> None:
        dataset = load_dataset(DataConfig(kind="cuhk03", root=cuhk03_root, boxes=boxes))
        assert labels(dataset.train) == [(1, 1), (1, 1), (1, 2), (2, 1), (2, 1)]
        assert labels(dataset.query) == [(3, 1), (4, 1)]
        assert labels(dataset.gallery) == [(3, 2), (3, 2), (4, 2)]
        assert dataset.name == f"cuhk03-{boxes}"
        for record in (*dataset.train, *dataset.query, *dataset.gallery):
            pair, person, _, number = (int(part) for part in record.path.split("/")[1][:-4].split("_"))
            pixels = np.asarray(dataset.read_image(record))
            assert pixels.shape == (60 + number, 30 + person, 3)
            assert (pixels == (10 * pair + person, number, 100 * (boxes == "detected"))).all()

    def test_folder_of_the_release(self, cuhk03_root: Path) -> None:
        (cuhk03_root / "cuhk03_release").mkdir()
        (cuhk03_root / "cuhk-03.mat").rename(cuhk03_root / "cuhk03_release" / "cuhk-03.mat")
        dataset = load_dataset(DataConfig(kind="cuhk03", root=cuhk03_root))
        assert dataset.read_image(dataset.train[0]).size == (31, 61)

    def test_rows_and_uint8_labels_are_read_too(
        self, cuhk03_root: Path, cuhk03_config: Callable[..., None]
    ) -> None:
        before = load_dataset(DataConfig(kind="cuhk03", root=cuhk03_root))
        config = cuhk03_root / "cuhk03_new_protocol_config_labeled.mat"
        cuhk03_config(config, labels=np.array([[1, 1, 1, 2, 2, 3, 3, 3, 4, 4]], np.uint8))
        assert load_dataset(DataConfig(kind="cuhk03", root=cuhk03_root)).gallery == before.gallery

    @pytest.mark.parametrize("missing", ["cuhk-03.mat", "cuhk03_new_protocol_config_labeled.mat"])
    def test_missing_file(self, cuhk03_root: Path, missing: str) -> None:
        (cuhk03_root / missing).unlink()
        with pytest.raises(AutoReIDError, match=f"no {missing} in it; expected cuhk-03.mat"):
            load_dataset(DataConfig(kind="cuhk03", root=cuhk03_root))

    @pytest.mark.parametrize("name", ["cuhk-03.mat", "cuhk03_new_protocol_config_labeled.mat"])
    def test_devices_are_not_read(self, cuhk03_root: Path, name: str) -> None:
        (cuhk03_root / name).unlink()
        (cuhk03_root / name).symlink_to("/dev/null")
        with pytest.raises(AutoReIDError, match=f"/{name}: not a regular file; expected cuhk-03.mat"):
            load_dataset(DataConfig(kind="cuhk03", root=cuhk03_root))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"query_idx": None}, "no query_idx in it"),
            ({"labels": np.ones((3, 1))}, "labels has 3 entries: expected 10"),
            ({"labels": np.zeros((10, 1))}, "labels below 1: expected 1 or more"),
            ({"gallery_idx": np.array([[7, 11, 0]])}, "gallery_idx holds 11, 0: expected 1 to 10"),
        ],
    )
    def test_damaged_protocol(
        self,
        cuhk03_root: Path,
        cuhk03_config: Callable[..., None],
        changes: dict[str, np.ndarray | None],
        message: str,
    ) -> None:
        cuhk03_config(cuhk03_root / "cuhk03_new_protocol_config_labeled.mat", **changes)
        with pytest.raises(AutoReIDError, match=message):
            load_dataset(DataConfig(kind="cuhk03", root=cuhk03_root))

    def test_protocol_that_is_not_a_mat_file(self, cuhk03_root: Path) -> None:
        (cuhk03_root / "cuhk03_new_protocol_config_labeled.mat").write_text("<html>404</html>" * 100)
        with pytest.raises(AutoReIDError, match="not a readable MATLAB file"):
            load_dataset(DataConfig(kind="cuhk03", root=cuhk03_root))

    def test_an_unparsed_name(self, cuhk03_root: Path, cuhk03_config: Callable[..., None]) -> None:
        names = np.empty((10, 1), object)
        names[:, 0] = [f"{pair}_001_1_01.png" for pair in (1, 2, 3, 4, 5, 1, 2, 3, 4)] + ["6_001_1_01.png"]
        cuhk03_config(cuhk03_root / "cuhk03_new_protocol_config_labeled.mat", filelist=names)
        dataset = load_dataset(DataConfig(kind="cuhk03", root=cuhk03_root))
        assert dataset.unparsed == ("6_001_1_01.png",)
        assert len(dataset.gallery) == 2

    @pytest.mark.parametrize("kind", ["external", "virtual", "link"])
    def test_bytes_of_another_file_are_not_read(self, cuhk03_root: Path, kind: str) -> None:
        secret = cuhk03_root / "secret"
        secret.write_bytes(bytes(range(180)))
        with h5py.File(cuhk03_root / "other.h5", "w") as other:
            other["x"] = np.zeros((3, 6, 10), np.uint8)
        with h5py.File(cuhk03_root / "cuhk-03.mat", "r+") as file:
            if kind == "link":
                del file["labeled"]
                file["labeled"] = h5py.ExternalLink("other.h5", "x")
            else:
                new = file.create_dataset("new", (3, 6, 10), np.uint8, external=[(str(secret), 0, 180)])
                if kind == "virtual":
                    layout = h5py.VirtualLayout((3, 6, 10), np.uint8)
                    layout[:] = h5py.VirtualSource(str(cuhk03_root / "other.h5"), "x", (3, 6, 10))
                    new = file.create_virtual_dataset("virtual", layout)
                file["#refs#/labeled1"][0, 0] = new.ref
        dataset = load_dataset(DataConfig(kind="cuhk03", root=cuhk03_root))
        with pytest.raises(ValueError, match=r"in another file|is not in this file"):
            dataset.read_image(ImageRecord("labeled/1_001_1_01.png", 1, 1))

    def test_empty_cells_are_counted(self, cuhk03_root: Path, cuhk03_config: Callable[..., None]) -> None:
        """Identity 2 has no image of view 2: names of such images are listed as unreadable."""
        names = np.empty((10, 1), object)
        names[:, 0] = ["1_002_2_06.png", "1_001_2_10.png"] + ["1_001_1_01.png"] * 8
        cuhk03_config(cuhk03_root / "cuhk03_new_protocol_config_labeled.mat", filelist=names)
        report = check_dataset(DataConfig(kind="cuhk03", root=cuhk03_root), decode_images=True)
        assert report.unreadable == (
            ("labeled/1_002_2_06.png", "ValueError: an empty cell"),
            ("labeled/1_001_2_10.png", "ValueError: an empty cell"),
        )


class TestMSMT17:
    def test_reads_every_split(self, msmt17_root: Path) -> None:
        dataset = load_dataset(DataConfig(kind="msmt17", root=msmt17_root))
        assert labels(dataset.train) == [(pid, c) for pid in (1, 2, 3) for c in (1, 4, 14, 15)]
        assert labels(dataset.query) == [(1, 1), (2, 12)]
        assert labels(dataset.gallery) == [(1, 1), (1, 2), (2, 13)]
        assert dataset.name.endswith(msmt17_root.name[-2:])
        for record in (*dataset.train, *dataset.query, *dataset.gallery):
            assert dataset.read_image(record).size == (64, 128)

    def test_missing_list(self, msmt17_root: Path) -> None:
        (msmt17_root / "list_val.txt").unlink()
        with pytest.raises(AutoReIDError, match=r"no list_val.txt in it; expected train/ and test/"):
            load_dataset(DataConfig(kind="msmt17", root=msmt17_root))

    def test_devices_are_not_read(self, msmt17_root: Path) -> None:
        (msmt17_root / "list_val.txt").unlink()
        (msmt17_root / "list_val.txt").symlink_to("/dev/null")
        with pytest.raises(AutoReIDError, match=r"list_val\.txt: not a regular file; expected train/"):
            load_dataset(DataConfig(kind="msmt17", root=msmt17_root))

    def test_unparsed_lines(self, msmt17_root: Path) -> None:
        listing = msmt17_root / "list_query.txt"
        listing.write_text(listing.read_text() + "0001/photo.jpg 1\n\n")
        dataset = load_dataset(DataConfig(kind="msmt17", root=msmt17_root))
        assert dataset.unparsed == ("list_query.txt: 0001/photo.jpg 1",)
        assert len(dataset.query) == 2

    def test_no_name_can_be_parsed(self, msmt17_root: Path) -> None:
        for listing in msmt17_root.glob("list_*.txt"):
            listing.write_text("a.jpg\nb.jpg\n")
        with pytest.raises(AutoReIDError, match="none of 8 names is like"):
            load_dataset(DataConfig(kind="msmt17", root=msmt17_root))

    def test_a_missing_listed_file_is_unreadable(self, msmt17_root: Path) -> None:
        config = DataConfig(kind="msmt17", root=msmt17_root)
        dataset = load_dataset(config)
        dataset.file_of(dataset.gallery[1]).unlink()
        report = check_dataset(config, decode_images=True)
        assert [path for path, _ in report.unreadable] == [dataset.gallery[1].path]


def test_the_report_counts_and_lists(market_root: Path) -> None:
    damaged = market_root / "bounding_box_test" / "0000_c1s1_000151_01.jpg"
    damaged.write_bytes(damaged.read_bytes()[:200])
    (market_root / "query" / "holiday.jpg").write_bytes(b"")
    report = check_dataset(DataConfig(root=market_root, height=32, width=16), decode_images=True)
    gallery = report.splits["gallery"]
    assert (gallery.images, gallery.identities, gallery.cameras) == (11, 2, 4)
    assert (gallery.distractors, gallery.junk) == (3, 2)
    assert len(report.unreadable) == 1
    table = report.table()
    assert "unreadable images: 1 of 24 decoded (bounding_box_test/0000_c1s1_000151_01.jpg (" in table
    assert "names that cannot be parsed: 1 (query/holiday.jpg)" in table
    assert "queries without a match: 0" in table


def test_people_in_both_halves_are_counted(market_root: Path, msmt17_root: Path) -> None:
    """MSMT17 numbers the people of both halves from 0: equal numbers are different people."""
    train = market_root / "bounding_box_train"
    image = min(train.glob("*.jpg")).read_bytes()
    for name in ("0001_c3s1_000001_00.jpg", "-1_c3s1_000001_00.jpg"):
        (train / name).write_bytes(image)
    table = check_dataset(DataConfig(root=market_root)).table()
    assert "people in both train and test: 1 (bounding_box_train/0001_c3s1_000001_00.jpg)" in table
    msmt17 = load_dataset(DataConfig(kind="msmt17", root=msmt17_root))
    assert {record.pid for record in msmt17.train} & {record.pid for record in msmt17.gallery}
    assert msmt17.trained_and_tested() == set()


def test_a_set_without_any_match_fails_the_check(market_root: Path) -> None:
    for image in (market_root / "query").glob("*.jpg"):
        pid = int(image.name[:4])
        image.rename(image.with_name(f"{pid + 700:04}{image.name[4:]}"))
    assert "no query has a match in the gallery" in check_dataset(DataConfig(root=market_root)).failure
