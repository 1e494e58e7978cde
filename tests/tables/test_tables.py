"""`tables --scale small` from one command: complete, killed and resumed, and what went wrong named."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoreid_fast.cli import main
from autoreid_fast.engine.run_folder import RunFolder
from autoreid_fast.tables.scale import PEOPLE

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MKL_NUM_THREADS", "1")


def test_killed_and_resumed_a_table_is_complete_and_keeps_what_was_done(
    tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "table"
    line = ["tables", "4", "--scale", "small", "--rows", "DARTS", "DARTS+PCB", "--out", str(out)]
    line += ["--device", "cpu", "--jobs", "2"]
    rows = {name: out / "rows" / name / "seed0" for name in ("darts", "darts-pcb")}
    process = subprocess.Popen([sys.executable, "-m", "autoreid_fast", *line], stderr=subprocess.PIPE)
    while process.poll() is None and not any((run / "history.json").exists() for run in rows.values()):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)  # the parent alone: what it began goes on
    process.communicate()
    assert not (out / "table.json").exists()
    assert main(line) == 0
    captured = capsys.readouterr()
    assert "SMALL SCALE" in captured.out
    assert "2 of 2 runs" in captured.out
    table = json.loads((out / "table.json").read_text())
    assert [row["name"] for row in table["rows"]] == ["DARTS", "DARTS+PCB"]
    for row, run in zip(table["rows"], rows.values(), strict=True):
        metrics = json.loads((run / "metrics.json").read_text())
        history = json.loads((run / "history.json").read_text())
        assert [record["epoch"] for record in history] == list(range(1, 7))
        assert row["ours"]["mAP"]["mean"] == 100 * metrics["mAP"]
        assert row["ours"]["params_M"]["mean"] == metrics["params_M"]
    assert RunFolder(rows["darts-pcb"]).recorded("train")["tail"] == "pcb"
    # once more: nothing is left to do
    before = {path: path.stat().st_mtime_ns for run in rows.values() for path in run.rglob("*")}
    assert main(line) == 0
    assert {path: path.stat().st_mtime_ns for run in rows.values() for path in run.rglob("*")} == before
    # and other settings have no place in the same folder
    assert main([*line, "--seeds", "0", "--scale", "full", "--data-root", str(out / "people")]) == 2
    assert "holds a run of other settings" in capsys.readouterr().err


def test_a_search_a_training_and_a_re_ranking_follow_each_other(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "table"
    line = ["tables", "1", "--scale", "small", "--rows", "Retrieval*(run 2)", "--out", str(out)]
    assert main([*line, "--device", "cpu"]) == 0
    search = out / "searches" / "retrieval-reid-2-seed0"
    train = out / "rows" / "retrieval-reid-search-space-run-2" / "seed0"
    assert (train / "genotype.json").read_text() == (search / "genotype.json").read_text()
    assert RunFolder(search).recorded("search")["seed"] == 2
    assert "Retrieval + ReID Search Space (run 2)" in capsys.readouterr().out


def test_a_row_that_fails_is_named_and_keeps_nothing_else_back(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "table"
    line = ["tables", "3", "--scale", "small", "--rows", "Baseline", "Baseline + RK", "--device", "cpu"]
    weights = ["--pretrained", "autoreid_baseline", str(tmp_path / "gone.pth")]
    assert main([*line, *weights, "--out", str(out)]) == 2
    captured = capsys.readouterr()
    assert "2 runs failed" in captured.err.splitlines()[-1]
    assert "no weights at" in captured.err.splitlines()[-1]
    assert "0 of 2 runs" in captured.out
    assert [path.name for path in (out / "logs").iterdir()] == ["rows-baseline-seed0-metrics.log"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1", "needs --data-root"),
        ("3 --data-root x", "give --imagenet"),
        ("4 --data-root x --rows PCB", "no such row"),
        ("4 --data-root x --jobs 0", "jobs 0: expected a number of at least 1"),
    ],
)
def test_what_cannot_be_run_is_one_line(line: str, message: str, tmp_path: Path, capsys: Capture) -> None:
    assert main(["tables", *line.split(), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_small_set_has_the_identities_that_a_batch_needs() -> None:
    from autoreid_fast.tables.scale import BATCH

    assert PEOPLE.train_identities >= BATCH.identities
