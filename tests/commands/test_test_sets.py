"""Evaluation of people of one's own: whom `eval` keeps out, and people that were trained on."""

from pathlib import Path

import pytest
from PIL import Image

from autoreid_fast.commands.evaluate import EvalOptions, Trained, _to_test_on, _warn_of_trained_people
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.load import load_dataset
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.training.config import TrainConfig

PATTERN = r"(?P<pid>\d+)_c(?P<camera>\d+)"


def photos(root: Path, **fields: float) -> DataConfig:
    """Four people, each seen by two cameras."""
    root.mkdir(exist_ok=True)
    for pid in range(1, 5):
        for camera in (1, 2):
            Image.new("RGB", (8, 16), (pid, camera, 0)).save(root / f"{pid}_c{camera}.png")
    return DataConfig(kind="folder", root=root, pattern=PATTERN, **fields)


def trained_on(tmp_path: Path) -> Trained:
    return RunFolder(tmp_path / "run"), TrainConfig(data=photos(tmp_path / "own"))


def people_of(trained: Trained, data: DataConfig, *arguments: str) -> int:
    options = _to_test_on(trained, EvalOptions(data=data), list(arguments))
    return load_dataset(options.data, ("query", "gallery")).query_identities


def test_another_set_is_tested_on_whole(tmp_path: Path) -> None:
    trained = trained_on(tmp_path)
    assert people_of(trained, trained[1].data) == 2
    other = photos(tmp_path / "other")
    assert people_of(trained, other) == 4
    assert people_of(trained, other, "--data.train-share", "0.5") == 2
    assert people_of(trained, other, "--data.train_identities=1") == 2


def test_the_own_set_in_another_place_keeps_its_split(tmp_path: Path) -> None:
    trained = trained_on(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "own").rename(tmp_path / "elsewhere" / "own")
    assert people_of(trained, photos(tmp_path / "elsewhere" / "own")) == 2


def test_people_that_were_trained_on_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained = trained_on(tmp_path)
    other = photos(tmp_path / "other", train_share=0)
    for photo in (tmp_path / "other").iterdir():
        Image.new("RGB", (8, 16), (99, 98, 97)).save(photo)
    for data in (trained[1].data, other):
        _warn_of_trained_people(trained, load_dataset(data, ("query", "gallery")))
    assert not caplog.text
    _warn_of_trained_people(trained, load_dataset(photos(tmp_path / "own", train_share=0), ("query",)))
    assert "own: 2 of the people who are scored were trained on" in caplog.text


def test_people_that_were_trained_on_are_known_by_their_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A copy of the photos under other names and numbers is still those people."""
    trained = trained_on(tmp_path)
    copy = tmp_path / "copy"
    copy.mkdir()
    for photo in (tmp_path / "own").iterdir():
        (copy / f"7{photo.name}").write_bytes(photo.read_bytes())
    data = DataConfig(kind="folder", root=copy, pattern=PATTERN, train_share=0)
    _warn_of_trained_people(trained, load_dataset(data, ("query",)))
    assert "copy: 2 of the people who are scored were trained on" in caplog.text
