"""`search-gallery`: order of the images, cache of the features, page, errors."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import autoreid_fast
from autoreid_fast.cli import main
from autoreid_fast.commands import search_gallery
from autoreid_fast.inference import gallery as gallery_module
from autoreid_fast.inference import gallery_cache
from autoreid_fast.inference.gallery import Gallery
from autoreid_fast.inference.gallery_cache import open_gallery

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def gallery(people: Path, tmp_path: Path) -> Path:
    """Twenty pictures in two folders; the name of one is HTML."""
    root = tmp_path / "gallery"
    for number, path in enumerate(sorted((people / "bounding_box_test").glob("*.jpg"))[:20]):
        target = root / f"camera {number % 2}" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    first = min((root / "camera 0").iterdir())
    first.rename(first.with_name("<script>alert('x')&.jpg"))
    return root


def search(model: Path, gallery: Path, query: Path, *more: str) -> int:
    return main(
        ["search-gallery", "--query", str(query), "--gallery", str(gallery), "--run", str(model), *more]
    )


def lines(out: str) -> list[tuple[int, float, str]]:
    matches = re.findall(r"^ +(\d+)  (\d\.\d{4})  (.*)$", out, re.M)
    return [(int(rank), float(distance), path) for rank, distance, path in matches]


def test_the_nearest_images_equal_those_of_sorting(
    trained: Path, gallery: Path, people: Path, tmp_path: Path, capsys: Capture
) -> None:
    query = min((people / "query").glob("*.jpg"))
    assert search(trained, gallery, query, "--top", "7", "--page", str(tmp_path / "page.html")) == 0
    out = capsys.readouterr().out
    matches = lines(out)
    paths = sorted(gallery.rglob("*.jpg"))
    model = autoreid_fast.load(trained)
    distances = (model.embed(query) - model.embed(paths)).norm(dim=1)
    order = distances.argsort(stable=True)[:7]
    assert [path for _, _, path in matches] == [str(paths[i]) for i in order]
    assert [rank for rank, _, _ in matches] == list(range(1, 8))
    np.testing.assert_allclose([distance for _, distance, _ in matches], distances[order], atol=2e-4)
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 8
    assert "<script>alert" not in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    if any("<script>" in path for _, _, path in matches):
        assert "&lt;script&gt;alert" in page


def test_a_query_in_the_gallery_does_not_match_itself(trained: Path, gallery: Path, capsys: Capture) -> None:
    query = sorted(gallery.rglob("*.jpg"))[3]
    assert search(trained, gallery, query, "--top", "999") == 0
    matches = lines(capsys.readouterr().out)
    assert len(matches) == 19
    assert str(query) not in [path for _, _, path in matches]


def test_features_are_cached_until_something_changes(
    trained: Path, gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extracted: list[int] = []
    extract = gallery_cache._extract

    def counted(embedder, dataset, *rest):  # type: ignore[no-untyped-def]
        extracted.append(len(dataset.gallery))
        return extract(embedder, dataset, *rest)

    monkeypatch.setattr(gallery_cache, "_extract", counted)
    model = autoreid_fast.load(trained)
    paths = sorted(gallery.rglob("*.jpg"))

    def opened() -> np.ndarray:
        opened = open_gallery(model, gallery, tmp_path / "cache")
        torch.testing.assert_close(
            torch.from_numpy(np.array(opened.features)), model.embed([gallery / p for p in opened.paths])
        )
        assert len(list((tmp_path / "cache" / "galleries").iterdir())) == 2
        return opened.features

    opened()
    opened()
    assert extracted == [20]
    paths[0].unlink()  # removed
    opened()
    Image.new("RGB", (40, 80), (200, 30, 30)).save(paths[1])  # changed
    opened()
    shutil.copy(paths[2], gallery / "one more.jpg")  # added
    opened()
    assert extracted == [20, 19, 19, 20]
    (features,) = (tmp_path / "cache" / "galleries").glob("*.f32")
    features.write_bytes(features.read_bytes()[:-4])  # cut short
    opened()
    with torch.no_grad():
        next(model.network.parameters()).add_(0.1)  # another network
    del model.checksum
    opened = open_gallery(model, gallery, tmp_path / "cache")
    torch.testing.assert_close(
        torch.from_numpy(np.array(opened.features)), model.embed([gallery / p for p in opened.paths])
    )
    assert extracted == [20, 19, 19, 20, 20, 20]


def flip_a_bit(features: Path, names: Path) -> None:
    content = bytearray(features.read_bytes())
    content[len(content) // 2] ^= 1
    features.write_bytes(content)


def zero_a_row(features: Path, names: Path) -> None:
    content = features.read_bytes()
    features.write_bytes(content[:-64] + bytes(64))


def reverse_the_paths(features: Path, names: Path) -> None:
    record = json.loads(names.read_text())
    names.write_text(json.dumps(record | {"paths": record["paths"][::-1]}))


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "flipped bit": flip_a_bit,
    "zeroed row": zero_a_row,
    "reversed paths": reverse_the_paths,
    "names gone": lambda features, names: names.unlink(),
    "features gone": lambda features, names: features.unlink(),
    "empty names": lambda features, names: names.write_text(""),
    "other names": lambda features, names: names.write_text("[3]"),
    "deep names": lambda features, names: names.write_text("[" * 100_000),
    "names of an earlier version": lambda features, names: names.write_text(
        '{"paths": [], "unreadable": []}'
    ),
}


def test_damaged_features_are_extracted_again(trained: Path, gallery: Path, tmp_path: Path) -> None:
    for path in sorted(gallery.rglob("*.jpg"))[3:]:
        path.unlink()
    model = autoreid_fast.load(trained, "cpu")
    opened = open_gallery(model, gallery, tmp_path / "cache")
    (features,) = (tmp_path / "cache" / "galleries").glob("*.f32")
    (names,) = (tmp_path / "cache" / "galleries").glob("*.json")
    paths, whole = opened.paths, np.array(opened.features)
    for damage, damaged in DAMAGES.items():
        damaged(features, names)
        opened = open_gallery(model, gallery, tmp_path / "cache")
        assert opened.paths == paths, damage
        np.testing.assert_array_equal(opened.features, whole, damage)


def test_an_image_replaced_under_equal_size_and_time(trained: Path, gallery: Path, tmp_path: Path) -> None:
    """As rsync --times or cp --preserve may do."""
    for path in sorted(gallery.rglob("*.jpg"))[1:]:
        path.unlink()
    (image,) = gallery.rglob("*.jpg")
    Image.new("RGB", (40, 80), (200, 30, 30)).save(image, "BMP")
    model = autoreid_fast.load(trained, "cpu")
    before = np.array(open_gallery(model, gallery, tmp_path / "cache").features)
    status = image.stat()
    Image.new("RGB", (40, 80), (30, 30, 200)).save(image, "BMP")
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (image.stat().st_size, image.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    after = open_gallery(model, gallery, tmp_path / "cache").features
    np.testing.assert_allclose(after, model.embed(image), atol=1e-6)
    assert np.abs(after - before).max() > 1e-4


def test_galleries_of_several_blocks(
    trained: Path, gallery: Path, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = autoreid_fast.load(trained)
    opened = open_gallery(model, gallery)
    feature = model.embed(min((people / "query").glob("*.jpg")))[0]
    whole = opened.nearest(feature, 6)
    monkeypatch.setattr(gallery_module, "ROWS_AT_ONCE", 3)
    assert opened.nearest(feature, 6) == whole
    monkeypatch.setattr(gallery_cache, "BATCH", 3)
    shutil.rmtree(gallery.parent / "xdg")
    torch.testing.assert_close(open_gallery(model, gallery).features, opened.features)


def test_unreadable_images_are_named_every_time(trained: Path, gallery: Path, capsys: Capture) -> None:
    (gallery / "torn.jpg").write_bytes(b"\xff\xd8\xff nothing")
    Image.new("RGB", (1, 1)).save(gallery / "dot.png")
    query = min((gallery / "camera 1").iterdir())
    for _ in range(2):
        assert search(trained, gallery, query, "--top", "999") == 0
        captured = capsys.readouterr()
        assert (
            "left out 2 unreadable images: dot.png (ValueError: 1x1 pixels: expected at least 4"
            in captured.err
        )
        assert len(lines(captured.out)) == 19


def test_invalid_input_is_one_line(trained: Path, gallery: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "a.jpg").write_bytes(b"no image")
    query = next(gallery.rglob("*.jpg"))
    for where, person, more, message in [
        (tmp_path / "empty", query, [], "no image below it; the gallery is a folder of images"),
        (tmp_path / "gone", query, [], "gone: no such folder"),
        (query, query, [], ".jpg: a file; expected the gallery, a folder of images"),
        (tmp_path / "torn", query, [], "none of 1 images can be read: a.jpg"),
        (gallery, tmp_path / "gone.jpg", [], "gone.jpg: no such file"),
        (gallery, tmp_path / "torn" / "a.jpg", [], "a.jpg: not an image that can be read"),
        (gallery, query, ["--top", "0"], "top is 0; expected 1 to 999"),
    ]:
        assert search(trained, where, person, *more) == 2, message
        assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_query_with_several_names_in_the_gallery_matches_none_of_them(
    trained: Path, gallery: Path, tmp_path: Path
) -> None:
    model = autoreid_fast.load(trained)
    query = max(gallery.rglob("*.jpg"))
    for number in range(5):
        (gallery / f"link {number}.jpg").symlink_to(query)
    os.link(query, gallery / "hard link.jpg")
    names = [path for _, path in open_gallery(model, gallery).nearest(model.embed(query)[0], 19, query)]
    files = {gallery / name for name in names}
    assert files == {path for path in gallery.rglob("*.jpg") if not path.samefile(query)}
    assert len(open_gallery(model, gallery).nearest(model.embed(query)[0], 1, query)) == 1


def test_images_that_change_before_the_page_is_drawn_are_blank(
    trained: Path,
    gallery: Path,
    people: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    def listed(*arguments: object) -> Gallery:
        opened = open_gallery(*arguments)  # type: ignore[arg-type]
        first, second, third, *_ = (gallery / path for path in opened.paths)
        first.unlink()
        Image.new("RGB", (1, 1)).save(second, "PNG")
        third.unlink()
        os.mkfifo(third)
        return opened

    monkeypatch.setattr(search_gallery, "open_gallery", listed)
    query = min((people / "query").glob("*.jpg"))
    assert search(trained, gallery, query, "--top", "20", "--page", str(tmp_path / "page.html")) == 0
    assert (tmp_path / "page.html").read_text().count("data:image/jpeg;base64,") == 21
    assert capsys.readouterr().err.count("not shown on the page") == 3


def test_names_cannot_add_lines_or_drive_the_terminal(
    trained: Path, gallery: Path, people: Path, tmp_path: Path, capsys: Capture
) -> None:
    for number, path in enumerate(sorted(gallery.rglob("*.jpg"))):
        name = f"{number}\x1b[2J\n   1  0.0000  forged".encode() + b"\xff.jpg"
        path.rename(path.with_name(os.fsdecode(name)))
    query = min((people / "query").glob("*.jpg"))
    assert search(trained, gallery, query, "--top", "3", "--page", str(tmp_path / "page.html")) == 0
    out, err = capsys.readouterr()
    assert len(lines(out)) == 3
    assert "\x1b" not in out + err
    assert "\\x1b[2J\\n   1  0.0000  forged\\udcff.jpg" in out
