"""The command `tables`: complete, killed and resumed; failures."""

import fcntl
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from autoreid_fast.cli import main
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.search.config import SearchConfig
from autoreid_fast.stopping import InterruptedRun
from autoreid_fast.tables import runner
from autoreid_fast.tables.plan import Task
from autoreid_fast.tables.runner import _arguments, _program, run_tasks
from autoreid_fast.tables.scale import SCALES, Scale
from autoreid_fast.training.config import TrainConfig

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MKL_NUM_THREADS", "1")


def test_a_killed_table_is_resumed_and_finished_rows_are_kept(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "table"
    names = ["ResNet-18", "Baseline (run 2)"]
    line = ["tables", "1", "--scale", "small", "--rows", *names, "--out", str(out), "--device", "cpu"]
    line += ["--jobs", "2"]
    search = out / "searches" / "baseline-2-seed0"
    rows = [out / "rows" / name / "seed0" for name in ("resnet-18", "baseline-run-2")]
    process = subprocess.Popen([sys.executable, "-m", "autoreid_fast", *line], stderr=subprocess.DEVNULL)
    while process.poll() is None and not (rows[0] / "history.json").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)  # of the parent only: its children keep running
    process.communicate()
    assert not (out / "table.json").exists()

    assert main(line) == 0
    out_text = capsys.readouterr().out
    assert "SMALL SCALE" in out_text
    assert "2 of 2 runs" in out_text
    table = json.loads((out / "table.json").read_text())
    assert [row["name"] for row in table["rows"]] == names
    for row, run in zip(table["rows"], rows, strict=True):
        metrics = json.loads((run / "metrics.json").read_text())
        assert row["ours"]["mAP"]["mean"] == 100 * metrics["mAP"]
        assert row["ours"]["params_M"]["mean"] == metrics["params_M"]
        history = json.loads((run / "history.json").read_text())
        assert [record["epoch"] for record in history] == list(range(1, 7))
    assert (rows[1] / "genotype.json").read_text() == (search / "genotype.json").read_text()
    statistics = table["rows"][1]["search"]
    metrics = json.loads((search / "metrics.json").read_text())
    assert statistics["entropy_reduce"]["mean"] == pytest.approx(
        100 * metrics["entropy_reduce"] / math.log(6)
    )
    assert statistics["part_aware_normal"] is None  # not a candidate
    assert table["rows"][0]["search"] is None
    recorded = RunFolder(search).recorded("search")
    assert (recorded["seed"], recorded["space"], recorded["objective"]["loss"]) == (2, "standard", "ce")

    before = {path: path.stat().st_mtime_ns for run in (search, *rows) for path in run.rglob("*")}
    assert main(line) == 0  # nothing to do
    assert {path: path.stat().st_mtime_ns for run in (search, *rows) for path in run.rglob("*")} == before
    capsys.readouterr()
    assert main([*line, "--scale", "full", "--data-root", str(out / "people")]) == 2
    assert "holds a run with other settings" in capsys.readouterr().err


def task(folder: Path, name: str, *after: Path) -> Task:
    """A task that fails at once: its command does not exist."""
    command: Any = f"no-{name}"
    run = folder / name
    (run / "config.yaml").parent.mkdir(parents=True, exist_ok=True)
    return Task(name, command, run, run / "metrics.json", None, after)


def test_a_failure_skips_only_what_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoreid_fast.tables.runner._arguments", lambda task: [task.command])
    first, second = task(tmp_path, "first"), task(tmp_path, "second")
    third = task(tmp_path, "third", first.result)
    done = task(tmp_path, "done")
    done.result.write_text("{}")
    calls: list[int] = []
    tasks = [done, first, second, third]
    failed = run_tasks(tasks, tmp_path, jobs=2, processes=1, on_done=lambda: calls.append(1))
    assert set(failed) == {first.result, second.result, third.result}
    assert "no command 'no-first'" in failed[first.result]
    assert "no command 'no-second'" in failed[second.result]
    assert failed[third.result] == "a run that it needs has failed"
    assert len(calls) == 2
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == [
        "first-metrics.log",
        "second-metrics.log",
    ]


def test_sigterm_is_passed_on_to_running_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unlike Ctrl-C, SIGTERM reaches only the parent."""
    started = [subprocess.Popen(["sleep", "600"]) for _ in range(2)]
    processes = iter(started)
    monkeypatch.setattr(runner._Pool, "_start", lambda *arguments: next(processes))

    def interrupted(seconds: float) -> None:
        raise InterruptedRun(signal.SIGTERM)

    monkeypatch.setattr(runner.time, "sleep", interrupted)
    with pytest.raises(InterruptedRun):
        run_tasks([task(tmp_path, "one"), task(tmp_path, "two")], tmp_path, 2, 1, lambda: None)
    assert [process.returncode for process in started] == [-signal.SIGTERM, -signal.SIGTERM]


def test_torchrun_passes_a_rows_arguments_on(tmp_path: Path) -> None:
    from torch.distributed.run import parse_args

    (tmp_path / "config.yaml").write_text("")
    row = Task("DARTS", "train", tmp_path, tmp_path / "metrics.json", TrainConfig())
    module, *options = [*_program(row, 4), *_arguments(row)]
    assert module == "torch.distributed.run"
    parsed = parse_args(options)
    assert (parsed.nproc_per_node, parsed.module, parsed.training_script) == ("4", True, "autoreid_fast")
    assert parsed.training_script_args == ["train", "--resume", "--run", str(tmp_path)]
    assert _program(row, 1) == _program(row._replace(command="rank"), 4) == ["autoreid_fast"]


def test_rows_of_an_earlier_command_are_waited_for(tmp_path: Path) -> None:
    done = task(tmp_path, "done")
    with (tmp_path / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # as a running row does
        thread = Thread(target=run_tasks, args=([done], tmp_path, 1, 1, lambda: None))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        done.result.write_text("{}")
    thread.join(30)
    assert not thread.is_alive()
    assert not (tmp_path / "logs").exists()  # the finished row is not run again


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1", "needs --data-root"),
        ("3 --data-root x", "give --imagenet"),
        ("4 --data-root x --rows PCB", "no such row"),
        ("4 --data-root gone", "gone: no such folder"),
        ("4 --data-root x --jobs 0", "jobs 0: expected a number of at least 1"),
    ],
)
def test_invalid_arguments_are_one_line(line: str, message: str, tmp_path: Path, capsys: Capture) -> None:
    assert main(["tables", *line.split(), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_there_are_enough_people_for_a_batch(scale: Scale) -> None:
    for config in (SearchConfig(**scale.search), TrainConfig(**scale.train)):
        assert scale.people.train_identities >= config.batch.identities


def test_missing_weights_are_found_before_anything_runs(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "table"
    line = ["tables", "3", "--scale", "small", "--rows", "Baseline", "--out", str(out), "--device", "cpu"]
    assert main([*line, "--pretrained", "autoreid_baseline", str(tmp_path / "gone.pth")]) == 2
    assert f"no weights at {tmp_path}/gone.pth" in capsys.readouterr().err
    assert not (out / "logs").exists()
