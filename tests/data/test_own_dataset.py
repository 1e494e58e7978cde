"""A user's data set in one file outside the package: checked, trained on and evaluated."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from autoreid_fast.cli import main
from autoreid_fast.data import DataConfig, Dataset, ImageRecord, load_dataset, register_dataset
from autoreid_fast.data.config import DATASETS
from autoreid_fast.data.images import files_below
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.registry import plugins

MODULE = '''
"""Data sets listed in a CSV file: one line per image with its split, identity, camera and path."""

import csv
from pathlib import Path

from pydantic import Field

from autoreid_fast.data import DataConfig, Dataset, ImageRecord, register_dataset
from autoreid_fast.data.images import files_below


class ListedConfig(DataConfig):
    """A data set with a list of its images."""

    listing: Path = Field(description="CSV file with the columns split, pid, camera and path.")
    smallest_camera: int = Field(1, ge=0, description="Leave out cameras below this number.")


@register_dataset("listed")
def read_listed(config: ListedConfig) -> Dataset:
    """Images listed in a CSV file."""
    splits = {"train": [], "query": [], "gallery": []}
    with config.listing.open() as lines:
        for line in csv.DictReader(lines):
            record = ImageRecord(line["path"], int(line["pid"]), int(line["camera"]))
            if record.camera >= config.smallest_camera:
                splits[line["split"]].append(record)
    root = config.root_folder
    splits = {name: tuple(records) for name, records in splits.items()}
    return Dataset("listed", root, **splits, read_image=files_below(root))
'''


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with 40 images, their listing and the module that reads it; the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(plugins, "_imported", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_listed.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "images").mkdir()
    random = np.random.default_rng(0)
    lines = ["split,pid,camera,path"]
    for pid in range(1, 9):
        for camera in (0, 1, 2, 3, 4):
            name = f"{pid}-{camera}.png"
            pixels = random.integers(0, 256, (32, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name)
            split = "train" if pid <= 4 else "query" if camera == 1 else "gallery"
            lines.append(f"{split},{pid},{camera},{name}")
    (tmp_path / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    yield tmp_path
    forget()


def forget() -> None:
    """Make the next command start as in a new process: the module not imported, nothing registered."""
    sys.modules.pop("my_listed", None)
    DATASETS._entries.pop("listed", None)
    plugins._imported.clear()


def test_a_data_set_in_one_file_is_checked_trained_on_and_evaluated(
    listed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--kind", "listed", "--root", "images", "--listing", "list.csv"]
    assert main(["data", "check", "--import", "my_listed", *options]) == 0
    assert "listed in images" in capsys.readouterr().out

    forget()
    data = [f"--data.{option[2:]}" if option.startswith("--") else option for option in options]
    size = ["--data.height", "32", "--data.width", "16", "--network", "resnet18", "--channels", "4"]
    batch = ["--epochs", "1", "--batch.identities", "2", "--batch.images", "2"]
    assert main(["train", *data, *size, *batch, "--run", "run", "--import", "my_listed.py"]) == 0
    recorded = yaml.safe_load((listed / "run" / "config.yaml").read_text(encoding="utf-8"))
    assert recorded["imports"] == [str(listed / "my_listed.py")]
    assert recorded["data"]["listing"] == str(listed / "list.csv")
    metrics = json.loads((listed / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["identities"] == 4

    forget()
    monkeypatch.chdir("/")  # the run knows where its module is
    assert main(["eval", "--run", str(listed / "run"), "--json", str(listed / "eval.json")]) == 0
    evaluated = json.loads((listed / "eval.json").read_text(encoding="utf-8"))
    assert evaluated["mAP"] == pytest.approx(metrics["mAP"])


def test_a_data_set_without_a_root_folder_is_evaluated(
    listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The listing holds the paths, so that the data set needs no root."""
    module = MODULE.replace("root = config.root_folder", 'root = config.listing.parent / "images"')
    (listed / "my_listed.py").write_text(module, encoding="utf-8")
    data = ["--data.kind", "listed", "--data.listing", "list.csv", "--import", "my_listed"]
    size = ["--data.height", "32", "--data.width", "16", "--network", "resnet18", "--channels", "4"]
    batch = ["--epochs", "1", "--batch.identities", "2", "--batch.images", "2", "--evaluate-every", "0"]
    assert main(["train", *data, *size, *batch, "--run", "run"]) == 0
    assert main(["eval", "--run", "run"]) == 0
    assert [path.name for path in (listed / "run" / "evaluations").iterdir()] == ["listed-listed"]


def test_its_options_are_explained_and_checked(listed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["train", "--import", "my_listed", "--data.kind", "listed"]
    with pytest.raises(SystemExit) as end:
        main([*line, "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "--data.listing PATH" in shown
    assert "--data.smallest-camera INT" in shown
    assert "--data.pattern" not in shown
    assert main(line) == 2
    assert "missing --data.listing (PATH)" in capsys.readouterr().err
    assert main([*line, "--data.listing", "x", "--data.smallest-camera", "-1"]) == 2
    assert "train: --data.smallest-camera: expected a value greater" in capsys.readouterr().err


def test_an_installed_package_offers_it_by_an_entry_point(
    listed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = listed / "my_plugin-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: my_plugin\nVersion: 1.0\n", encoding="utf-8"
    )
    (package / "entry_points.txt").write_text(
        "[autoreid_fast.plugins]\nlisted = my_listed\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(listed))
    plugins.load_entry_points.cache_clear()
    assert main(["data", "check", "--kind", "listed", "--root", "images", "--listing", "list.csv"]) == 0
    assert "listed in images" in capsys.readouterr().out


def test_without_the_import_its_name_is_unknown(listed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "--kind", "listed"]) == 2
    assert "unknown data set 'listed': expected one of cuhk03, folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("None", "data set wrong: expected a Dataset, got NoneType"),
        (
            "Dataset('wrong', root, (('a.png', 1, 1),), (), (), read)",
            r"train\[0\] is a tuple; expected",
        ),
        (
            "Dataset('wrong', root, (ImageRecord('a.png', 'anna', 1),), (), (), read)",
            r"train\[0\] has pid 'anna' and camera 1; expected integers",
        ),
    ],
)
def test_a_reader_that_returns_something_else_is_named(expression: str, words: str, tmp_path: Path) -> None:
    names = {"Dataset": Dataset, "ImageRecord": ImageRecord, "root": tmp_path, "read": files_below(tmp_path)}

    @register_dataset("wrong")
    def read_wrong(config: DataConfig) -> object:
        return eval(expression, names)

    with pytest.raises(AutoReIDError, match=words):
        load_dataset(DataConfig(kind="wrong", root=tmp_path))


def test_a_reader_that_fails_is_named_with_its_line(listed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("list.csv").write_text("split,person,camera,path\ntrain,1,1,1-1.png", encoding="utf-8")
    options = ["--kind", "listed", "--root", "images", "--listing", "list.csv"]
    assert main(["data", "check", "--import", "my_listed", *options]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "data set listed raises KeyError: 'pid' in " in line
    assert f"{listed / 'my_listed.py'}, line {MODULE.splitlines().index(RECORD_LINE) + 1}" in line


RECORD_LINE = '            record = ImageRecord(line["path"], int(line["pid"]), int(line["camera"]))'


def test_a_check_finds_missing_files_and_a_reader_without_images(
    listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command fails where training would."""
    options = ["--import", "my_listed", "--kind", "listed", "--root", "images", "--listing", "list.csv"]
    assert main(["data", "check", *options]) == 0
    assert "unreadable images: 0 of 3 decoded" in capsys.readouterr().out  # the first of each split
    for name in ("1-3.png", "8-4.png"):
        (listed / "images" / name).unlink()
    assert main(["data", "check", *options]) == 2
    printed = capsys.readouterr()
    assert "unreadable images: 2 of 5 decoded (1-3.png (FileNotFoundError" in printed.out
    assert "1 of 16 images cannot be read, more than data.max_unreadable_share" in printed.err
    assert main(["data", "check", *options, "--max-unreadable-share", "0.1"]) == 0
    capsys.readouterr()

    forget()
    (listed / "my_listed.py").write_text(MODULE.replace("files_below(root))", "lambda record: None)"))
    assert main(["data", "check", *options]) == 2
    printed = capsys.readouterr()
    assert "read_image returned NoneType; expected a PIL image" in printed.out
    assert "of 16 images cannot be read" in printed.err
