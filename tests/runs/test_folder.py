"""Run folders that lost some of their files: nothing is resumed, mixed or deleted without a word."""

import errno
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import write_json
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.nas.published import GENOTYPES
from autoreid_fast.runs import folder as folder_module
from autoreid_fast.runs.folder import RunFolder, open_run, position_of
from autoreid_fast.schema import Config
from autoreid_fast.stopping import InterruptedRun
from autoreid_fast.training.network import GenotypePart


class SomeConfig(Config):
    epochs: int = 3


class OtherConfig(SomeConfig):
    epochs: int = 4


def finished(folder: Path, epochs: int = 3) -> RunFolder:
    """A run whose best epoch is the first."""
    run = RunFolder(folder)
    run.start(SomeConfig(), "train")
    for epoch in range(1, epochs + 1):
        run.save(epoch, [{"epoch": number} for number in range(1, epoch + 1)], {}, best=epoch == 1)
    write_json(run.metrics, {"mAP": 0.5})
    return RunFolder(folder)


@pytest.mark.parametrize(
    ("gone", "epoch"), [(("last",), 2), (("last", "previous"), 1), (("previous",), 3), (("best",), 3)]
)
def test_the_latest_checkpoint_that_is_there(
    gone: tuple[str, ...], epoch: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = finished(tmp_path / "run")
    for name in gone:
        (run.path / "checkpoints" / f"{name}.pt").unlink()
    with caplog.at_level(logging.WARNING, logger="autoreid_fast"):
        state = run.load()
    assert state is not None and state["epoch"] == epoch
    used = {3: [], 2: ["using the previous checkpoint"], 1: ["using the best checkpoint"]}[epoch]
    assert [line.split(": ")[-1].split(",")[0] for line in caplog.messages] == used
    run.save(epoch + 1, state["history"], {})
    assert RunFolder(run.path).load()["epoch"] == epoch + 1  # type: ignore[index]


def test_lost_checkpoints_are_not_a_new_run(tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    for path in (run.checkpoint, run.previous, run.best):
        path.unlink()
    with pytest.raises(AutoReIDError, match=r"last\.pt: gone, .* history\.json shows that epochs have ended"):
        run.load()


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path: Path) -> None:
    """An epoch's evaluation writes its lists before the epoch is saved."""
    run = RunFolder(tmp_path / "run")
    run.start(SomeConfig(), "train")
    for path in (run.untrained, run.retrieval, run.genotype):
        write_json(path, {})
    assert run.load() is None


@pytest.mark.parametrize("left", ["checkpoints", "history.json", "metrics.json", "features"])
def test_a_folder_whose_config_is_gone_is_not_started_again(left: str, tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    run.features.mkdir()
    run.config.unlink()
    for path in run.path.iterdir():
        if path.name != left:
            path.rename(tmp_path / path.name)
    with pytest.raises(AutoReIDError, match=r"whose config\.yaml is gone: restore it"):
        run.start(OtherConfig(), "train")
    with (
        pytest.raises(AutoReIDError, match=r"config\.yaml is gone"),
        open_run(run.path, OtherConfig(), "train"),
    ):
        pass
    assert (run.path / left).exists() and not run.config.exists()


def test_a_resumed_run_that_is_refused_keeps_its_files(tmp_path: Path) -> None:
    """Such as when the disk of its images is not mounted, before or after its first checkpoint."""
    RunFolder(tmp_path / "run").start(SomeConfig(), "train")  # killed before its first checkpoint
    before = {path.name for path in (tmp_path / "run").iterdir()}
    with pytest.raises(AutoReIDError), open_run(tmp_path / "run", SomeConfig(), "train"):
        raise AutoReIDError("data.root: no such folder")
    assert before <= {path.name for path in (tmp_path / "run").iterdir()}


@pytest.mark.parametrize("error", [AutoReIDError("no such folder"), OSError(errno.ENOSPC, "No space left")])
def test_a_failed_start_leaves_nothing_of_its_own(error: Exception, tmp_path: Path) -> None:
    folder = tmp_path / "notes" / "runs" / "run"
    for kept in (False, True):
        if kept:
            folder.mkdir(parents=True)
            (folder / "notes.txt").write_text("mine")
        with pytest.raises(type(error)), open_run(folder, SomeConfig(), "train") as run:
            (run.events / "one").mkdir(parents=True)
            GENOTYPES["darts_v2"].save(run.genotype)
            raise error
        left = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
        assert left == (["notes/runs/run/notes.txt"] if kept else [])
        assert kept or not list(tmp_path.iterdir())


def test_a_start_that_cannot_be_recorded_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise AutoReIDError("config.yaml: cannot be written (No space left on device)")

    monkeypatch.setattr(folder_module, "write_text", full)
    with pytest.raises(AutoReIDError, match="cannot be written"):
        RunFolder(tmp_path / "runs" / "run").start(SomeConfig(), "train")
    assert list(tmp_path.iterdir()) == []


def test_a_start_without_a_log_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folder_module, "_LogFile", full)
    with (
        pytest.raises(AutoReIDError, match=r"log\.txt: cannot be written"),
        open_run(tmp_path / "run", SomeConfig(), "train"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_one_checkpoint_of_a_run(tmp_path: Path) -> None:
    path = finished(tmp_path / "run").path
    for name, epoch in (("best", 1), ("previous", 2), ("last", 3)):
        run = RunFolder.of(path / "checkpoints" / f"{name}.pt")
        assert run.path == path and run.last_state()["epoch"] == epoch
    assert RunFolder.of(path).last_state()["epoch"] == 3
    (path / "checkpoints" / "best.pt").unlink()
    with pytest.raises(AutoReIDError, match=r"best\.pt: no such checkpoint"):
        RunFolder.of(path / "checkpoints" / "best.pt").last_state()


@pytest.mark.parametrize("change", [lambda cell: cell[::-1], lambda cell: cell[:3] + cell[:1]])
def test_another_genotype_is_noticed(change: Callable[[Any], Any], tmp_path: Path) -> None:
    genotype = Genotype(normal=[[("max_pool_3x3", 0), ("skip_connect", 1)]] * 3 + [[("skip_connect", 0)] * 2],
                        reduce=[[("sep_conv_3x3", 0), ("skip_connect", 1)]] * 4)  # fmt: skip
    swapped = Genotype(normal=change(genotype.normal), reduce=genotype.reduce)
    run = RunFolder(tmp_path)
    run.save(1, [], {"genotype": GenotypePart(genotype, run).state_dict()})
    state = run.last_state()["genotype"]
    GenotypePart(genotype, run).load_state_dict(state)
    with pytest.raises(AutoReIDError, match=r"genotype\.json: not the genotype that the run's checkpoint"):
        GenotypePart(swapped, run).load_state_dict(state)


@pytest.mark.parametrize("name", ["bounding_box_train/", "0001_c1.jpg", "list.csv", "my_project.py"])
def test_a_folder_with_other_things_is_no_run_folder(name: str, tmp_path: Path) -> None:
    other = tmp_path / name
    other.mkdir() if name.endswith("/") else other.touch()
    words = f"holds {other.name}, which no run has written; choose a new folder"
    with pytest.raises(AutoReIDError, match=words):
        RunFolder(tmp_path).start(SomeConfig(), "train")
    with pytest.raises(AutoReIDError, match=words), open_run(tmp_path, SomeConfig(), "train"):
        pass
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {other.name}


def test_logs_of_a_scheduler_may_be_there(tmp_path: Path) -> None:
    for name in ("slurm-7.out", "job.log", ".DS_Store"):
        (tmp_path / name).touch()
    RunFolder(tmp_path).start(SomeConfig(), "train")
    assert RunFolder(tmp_path).command() == "train"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (AutoReIDError("epochs: expected more"), "epochs: expected more"),
        (RuntimeError("out of memory\n  at line 3"), "ended by RuntimeError: out of memory"),
        (InterruptedRun(signal.SIGTERM), "ended by InterruptedRun: SIGTERM"),
    ],
)
def test_the_log_ends_with_words(error: BaseException, line: str, tmp_path: Path) -> None:
    run = finished(tmp_path / "run")
    with pytest.raises(type(error)), run.session():
        raise error
    assert run.log.read_text().splitlines()[-1].split(" ", 2)[2] == line


def test_positions_say_what_their_numbers_count() -> None:
    assert position_of({"epoch": 3}) == "epoch 3"
    assert position_of({"epoch": 3, "losses": [[0.5]] * 20}) == "20 steps of epoch 4"
    assert position_of({"epoch": 0, "losses": [[0.5]]}) == "1 step of epoch 1"
