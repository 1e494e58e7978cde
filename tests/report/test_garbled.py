"""Garbled files of a run: one line about each, and a report of the others; never a traceback."""

import json
import logging
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autoreid_fast.cli import main
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import write_json
from autoreid_fast.report.run_view import read_run
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.tables.plan import Task
from autoreid_fast.tables.results import _metrics

from .garbled import garbled

Make = Callable[..., Path]
FILES = (
    "train/config.yaml",
    "train/environment.json",
    "train/history.json",
    "train/metrics.json",
    "train/genotype.json",
    "train/retrieval.json",
    "search/config.yaml",
    "search/history.json",
    "search/genotype.json",
)
READ, DRAWN = 150, 1
"""Garbled contents of each file that are read, and that a report is drawn of, chosen at random."""
VIEWS = {"environment": {}, "history": [], "metrics": {}, "genotype": None, "retrieval": None}
"""The values that a report uses in place of a file that cannot be read, by the file's name."""


@pytest.fixture(scope="module")
def runs(make_search: Make, make_training: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search and a training."""
    folder = tmp_path_factory.mktemp("garbled")
    make_search(folder / "search")
    make_training(folder / "train")
    return folder


@pytest.fixture(params=FILES)
def file(request: pytest.FixtureRequest, runs: Path) -> Iterator[Path]:
    """A file of a run, which is restored after the test."""
    path = runs / request.param
    content = path.read_bytes()
    yield path
    path.write_bytes(content)


def some(file: Path, count: int) -> list[bytes]:
    contents = list(garbled(file))
    return random.Random(f"{file.parent.name}/{file.name}").sample(contents, min(count, len(contents)))


def test_reading_names_the_file_and_leaves_it_out(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it holds; most contents do not fit, some do."""
    refused = 0
    for content in some(file, READ):
        file.write_bytes(content)
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="autoreid_fast"):
            try:
                view = read_run(file.parent)
            except AutoReIDError as error:
                assert file.name == "config.yaml"
                assert str(error).startswith((f"{file}: ", f"{file.parent} holds a run of"))
                assert "\n" not in str(error) and len(str(error)) < 1000
                refused += 1
                continue
        if caplog.messages:
            (message,) = caplog.messages
            assert message.startswith(f"{file}: ") and "\n" not in message and len(message) < 1000
            assert getattr(view, file.stem) == VIEWS[file.stem]
            refused += 1
    assert refused > 30


@pytest.mark.usefixtures("no_files")
def test_reports_are_drawn_of_what_is_left(
    file: Path, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = runs / ("search" if file.parent.name == "train" else "train")
    for content in some(file, DRAWN):
        file.write_bytes(content)
        report = main(["report", str(file.parent)])
        assert report == 0 or (report == 2 and file.name == "config.yaml")
        assert main(["compare", str(file.parent), str(whole), "--out", str(tmp_path / "page.html")]) == report
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.yaml", "history.json", "retrieval.json"])
def test_what_is_not_a_regular_file_is_not_waited_for(name: str, make_training: Make, tmp_path: Path) -> None:
    run = make_training(tmp_path / "run")
    for put in (Path.mkdir, os.mkfifo):
        path = run / name
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        put(path)
        if name == "config.yaml":
            with pytest.raises(AutoReIDError, match="holds no run"):
                read_run(run)
        else:
            assert not getattr(read_run(run), path.stem)


def test_alpha_of_another_space_is_left_out(
    make_search: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each epoch fits its type, but not the others."""
    run = make_search(tmp_path / "run")
    history = json.loads((run / "history.json").read_text())
    history[1]["alpha_normal"] = [row[:6] for row in history[1]["alpha_normal"]]
    write_json(run / "history.json", history)
    assert main(["report", str(run)]) == 0
    assert "history.json, epoch 2: no alpha of the reid space; left out" in capsys.readouterr().err
    page = (run / "report" / "index.html").read_text()
    assert 'id="alpha"' not in page and 'id="search-curves"' in page


def test_tables_name_results_that_cannot_be_read(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    task = Task("a row", "train", tmp_path, run.metrics, None)
    write_json(run.metrics, {"mAP": 0.5, "rank1": 0.6, "params_M": 1.5, "genotype": [], "note": "kept"})
    assert _metrics(task)["mAP"] == 0.5
    refused = 0
    for content in list(garbled(run.metrics)):
        run.metrics.write_bytes(content)
        try:
            _metrics(task)
        except AutoReIDError as error:
            assert str(error).startswith(f"{run.metrics}: ") and str(error).endswith("writes it again")
            refused += 1
    assert refused > 50
