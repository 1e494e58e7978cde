"""Garbled files of a run: export and derive name them in one line, or do without them."""

import random
import shutil
from pathlib import Path

import pytest

from autoreid_fast.cli import main

from ..report.garbled import TEXTS, garbled

CONTENTS = 3
NEEDED = {"config.yaml", "genotype.json"}


@pytest.mark.parametrize("name", ["config.yaml", "genotype.json", "environment.json", "metrics.json"])
def test_a_garbled_training(
    name: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run, ignore=shutil.ignore_patterns("events", "report", "evaluations"))
    refused = 0
    # other sizes of the network in config.yaml are the matter of the config's types
    contents = TEXTS if name == "config.yaml" else tuple(garbled(run / name))
    for content in random.Random(name).sample(contents, CONTENTS):
        (run / name).write_bytes(content)
        line = ["export", str(run), "--format", "safetensors", "--out", str(tmp_path / "model.safetensors")]
        status = main(line)
        errors = capsys.readouterr().err
        assert status in (0, 2) and "Traceback" not in errors, errors
        assert max(map(len, errors.splitlines()), default=0) < 1000
        refused += status == 2
    assert (refused > 0) == (name in NEEDED)


def test_a_garbled_search(searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, name = tmp_path / "run", "config.yaml"
    shutil.copytree(searched, run, ignore=shutil.ignore_patterns("events", "report"))
    statuses = []
    for content in random.Random(name).sample(list(garbled(run / name)), 4 * CONTENTS):
        (run / name).write_bytes(content)
        statuses.append(main(["derive", str(run)]))
        errors = capsys.readouterr().err
        assert "Traceback" not in errors and errors.count("\n") == (statuses[-1] == 2), errors
    assert 2 in statuses
