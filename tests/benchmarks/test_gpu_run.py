"""Runs of a GPU session on the CPU: stub items with a clock of their own, and real items at toy sizes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from autoreid_fast.benchmarks.harness.case import find
from autoreid_fast.benchmarks.harness.gpu import kernels, run, tools
from autoreid_fast.benchmarks.harness.gpu.items import Deadline, Figures, Item, RunFile, Setting, work_through
from autoreid_fast.benchmarks.harness.gpu.plans import FIRST, SECOND
from autoreid_fast.benchmarks.harness.gpu.steps import commands_of_search

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting("cpu", True, tmp_path)


def written(setting: Setting) -> RunFile:
    return RunFile.model_validate_json((setting.out / "first.json").read_text())


def test_a_failure_costs_one_item_and_every_item_is_flushed(setting: Setting) -> None:
    seen: list[int] = []

    def count(setting: Setting) -> Figures:
        seen.append(len(written(setting).outcomes))
        return {"speed": 2.5}

    def crash(setting: Setting) -> Figures:
        raise ValueError("no such kernel")

    items = [Item("bad", 5, crash), Item("one", 5, count), Item("two", 5, count)]
    work_through("first", items, setting, Deadline(60))
    assert seen == [1, 2]  # what came before was on disk already
    bad, one, two = written(setting).outcomes
    assert (bad.status, one.status, two.status) == ("failed", "done", "done")
    assert bad.error is not None and "no such kernel" in bad.error
    assert two.figures == {"speed": 2.5}


def test_what_does_not_fit_before_the_deadline_is_skipped_and_shorter_items_still_run(
    setting: Setting,
) -> None:
    now = [0.0]

    def work(setting: Setting) -> Figures:
        now[0] += 50
        return {}

    items = [Item("a", 60, work), Item("long", 51, work), Item("b", 50, work), Item("c", 1, work)]
    file = work_through("first", items, setting, Deadline(100, clock=lambda: now[0]))
    assert [outcome.status for outcome in file.outcomes] == ["done", "skipped", "done", "skipped"]
    assert file.outcomes[1].error == "needs 51 s, 50 s left"


def test_an_item_that_outlasts_its_seconds_is_stopped(setting: Setting) -> None:
    def spin(setting: Setting) -> Figures:
        while True:
            pass

    [outcome] = work_through("first", [Item("spin", 1, spin)], setting, Deadline(60)).outcomes
    assert outcome.status == "failed" and outcome.error is not None and "within 1 s" in outcome.error


def test_the_runs_name_every_item_once_and_fit_a_lease() -> None:
    for items in (FIRST, SECOND):
        names = [item.name for item in items]
        assert len(set(names)) == len(names)
        assert max(item.seconds for item in items) < 200
    order = ["doctor", "tests", "ceilings", "op, mixed_op_sum", "evaluation", "sanitizers", "counters"]
    places = [[item.name for item in FIRST].index(name) for name in order]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "name",
    ["doctor", "evaluation", "re-ranking", "CPU and GPU ranks", "products", "nearest", "sorting evaluator",
     "sanitizers", "counters"],
)  # fmt: skip
def test_an_item_is_rehearsed_on_the_cpu(name: str, setting: Setting) -> None:
    [item] = [item for item in FIRST if item.name == name]
    figures = item.run(setting)
    json.dumps(figures, allow_nan=False)
    if name == "CPU and GPU ranks":
        assert figures == {"first hits equal": True, "difference of mAP": 0.0}
    if name == "sanitizers":
        assert "--tool racecheck" in figures["commands"][1] and "no GPU" in figures["not done"]
    if name == "counters":
        assert "regex:separable_products" in figures["commands"][0]


def test_without_a_gpu_it_says_so_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run.main(["first", "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == "gpu_run: no CUDA device that torch can use: nothing was run\n"
    assert not (tmp_path / "out").exists()


def test_the_tests_item_runs_every_gpu_test(tmp_path: Path) -> None:
    command = tools.test_command(Setting("cuda", False, tmp_path))
    files = {ROOT / word for word in command if word.endswith("_gpu.py")}
    marked = {path for path in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.gpu" in path.read_text()}
    assert files == marked - {Path(__file__)}


def test_the_sanitizers_compile_a_driver_without_torch(tmp_path: Path) -> None:
    source = Path(next(word for word in tools.compile_command(tmp_path / "x") if word.endswith(".cu")))
    assert "batch_hard.cu" in source.read_text() and "torch" not in source.read_text().split("#include")[1]


def test_counts_of_tests_name_the_failures(tmp_path: Path) -> None:
    report = tmp_path / "tests.xml"
    case = '<testcase classname="t" name="{}">{}</testcase>'
    cases = [case.format("a", ""), case.format("b", "<failure/>"), case.format("c", "<skipped/>")]
    report.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    expected = {"passed": 1, "failed": 1, "skipped": 1, "failures": ["t::b"]}
    assert tools.counted(report) == expected


def test_tests_that_do_not_end_are_interrupted_so_that_their_report_is_written(tmp_path: Path) -> None:
    code = (
        "import signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "try:\n print(flush=True)\n time.sleep(60)\n"
        "except KeyboardInterrupt:\n open('report', 'w')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, start_new_session=True
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()  # it sleeps now
        tools.stop(process)
    assert (tmp_path / "report").exists()


def test_without_rivals_a_row_has_ours_and_the_reference(setting: Setting) -> None:
    [case] = find(["batch_hard"])
    [variant] = kernels.variants_of(case.variants, setting)
    [row] = kernels.op(setting, "batch_hard")["rows"]
    assert row["sizes"] == variant.sizes
    assert list(row["candidates"]) == ["ours", "reference"]


def test_the_commands_of_the_short_search_are_ours(tmp_path: Path) -> None:
    synth, search, train = commands_of_search(Setting("cuda", False, tmp_path))
    assert (synth[:2], search[0], train[0]) == (["data", "synth"], "search", "train")
    assert "--alpha.decay-epochs" in search and "--decay-epochs" in train


def test_the_shell_script_is_sound() -> None:
    assert subprocess.run(["bash", "-n", ROOT / "benchmarks" / "gpu_run.sh"]).returncode == 0
