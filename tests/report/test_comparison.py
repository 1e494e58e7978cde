"""Comparison of runs: metrics, differing config fields, distinct names."""

from collections.abc import Callable
from pathlib import Path

import pytest

from autoreid_fast.cli import main
from autoreid_fast.report.comparison import comparison, config_differences, runs_to_compare

Make = Callable[..., Path]


def test_table_and_page_show_every_run(
    make_search: Make, make_training: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [
        make_search(tmp_path / "search"),
        make_training(tmp_path / "one", mAP=0.1234),
        make_training(tmp_path / "two", mAP=0.5678),
    ]
    page = tmp_path / "page.html"
    assert main(["compare", *map(str, folders), "--out", str(page)]) == 0
    out = capsys.readouterr().out
    for text in ("search", "one", "12.3", "two", "56.8", "3 min 03 s", str(page)):
        assert text in out
    written = page.read_text(encoding="utf-8")
    assert 'id="curves"' in written
    assert "<h3>search</h3>" in written and "<h3>one, two</h3>" in written  # equal genotypes are drawn once


def test_only_differing_fields_are_listed(make_training: Make, tmp_path: Path) -> None:
    one = make_training(tmp_path / "one", seed=1, data={"kind": "synthetic", "height": 128})
    two = make_training(tmp_path / "two", seed=2, data={"kind": "synthetic", "height": 64}, extra=None)
    rows = config_differences(runs_to_compare([one, two]))
    assert rows == [["data.height", "128", "64"], ["seed", "1", "2"], ["extra", "", "None"]]


def test_fields_of_only_one_command_are_not_differences(
    make_search: Make, make_training: Make, tmp_path: Path
) -> None:
    search, run = make_search(tmp_path / "search"), make_training(tmp_path / "run", epochs=3)
    names = [row[0] for row in config_differences(runs_to_compare([search, run]))]
    assert names == ["command"]


def test_equal_names_are_extended_by_their_folders(make_training: Make, tmp_path: Path) -> None:
    make_training(tmp_path / "a/run")
    make_training(tmp_path / "b/run")
    runs = runs_to_compare([tmp_path / "a", tmp_path / "b"])  # folders of runs
    assert [row[0] for row in comparison(runs).rows] == ["a/run", "b/run"]


def test_a_single_run_is_an_error(
    make_training: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(make_training(tmp_path / "run"))
    assert main(["compare", run, run]) == 2
    assert "two runs at least" in capsys.readouterr().err
