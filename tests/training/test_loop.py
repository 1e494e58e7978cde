"""The epoch loop: a run killed at any write and resumed ends like an undisturbed one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.runs.checkpoint import load_checkpoint, save_checkpoint
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.schema import Config
from autoreid_fast.training.epoch import Epoch
from autoreid_fast.training.loop import EpochResult, run_epochs

EPOCHS, STEPS = 4, 3
WRITES = 3 + 4 * (EPOCHS - 1)


class SomeConfig(Config):
    epochs: int = EPOCHS


class Died(BaseException):
    """Stands for SIGKILL: no handler catches it."""


def toy_run(
    folder: Path,
    epochs: int = EPOCHS,
    width: int = 3,
    poison: tuple[int, int] = (-1, 0),
    tolerant: bool = False,
) -> list[dict[str, Any]]:
    """Train a linear layer on random numbers: the end depends on weights, momentum and generator."""
    torch.manual_seed(5)
    layer = torch.nn.Linear(width, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)

    def one_epoch(epoch: Epoch) -> EpochResult:
        optimizer.param_groups[0]["lr"] = 0.1 / (epoch.number + 1)
        for _ in epoch.steps(range(epoch.done, STEPS), lambda step: ()):
            loss = layer(torch.randn(4, width)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            epoch.add(loss=loss)
        weight = layer.weight.detach().flatten().tolist()
        record = {"loss": epoch.means().item(), "score": float(epoch.number), "weight": weight}
        return EpochResult(record, "a summary", images=STEPS * 4)

    parts = {"layer": layer, "optimizer": optimizer}
    return run_epochs(RunFolder(folder), epochs, parts, one_epoch, best_by="score")


def without_seconds(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name != "seconds"} for record in history]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return without_seconds(toy_run(tmp_path_factory.mktemp("alone")))


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("write", range(WRITES))
def test_death_at_any_write(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    undisturbed: list[dict[str, Any]],
    write: int,
    before: bool,
    record_property: Callable[[str, object], None],
) -> None:
    """An epoch ends by renaming previous, best, last, history; the run dies before or after one of these."""
    replace = Path.replace
    writes = 0

    def dying_replace(self: Path, target: Path) -> Path:
        nonlocal writes
        dies = writes == write
        writes += 1
        if dies and before:
            raise Died
        result = replace(self, target)
        if dies:
            raise Died
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying_replace)
        with pytest.raises(Died):
            toy_run(tmp_path)
    record_property("fault", ("death before or after a file of a run is renamed", 1))
    history = toy_run(tmp_path)
    assert without_seconds(history) == undisturbed
    assert json.loads((tmp_path / "history.json").read_text()) == history
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_finished_run_changes_nothing(tmp_path: Path, undisturbed: list[dict[str, Any]]) -> None:
    first = toy_run(tmp_path)
    checkpoint = (tmp_path / "checkpoints" / "last.pt").read_bytes()
    assert toy_run(tmp_path) == first
    assert (tmp_path / "checkpoints" / "last.pt").read_bytes() == checkpoint
    assert without_seconds(first) == undisturbed


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    toy_run(tmp_path)
    with pytest.raises(AutoReIDError, match=r"last\.pt: does not fit this run's layer") as error:
        toy_run(tmp_path, width=4)
    assert "\n" not in str(error.value)


def test_damaged_checkpoints_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    with pytest.raises(AutoReIDError, match="no such checkpoint"):
        load_checkpoint(path)
    save_checkpoint(path, {"epoch": 1, "model": {"weight": torch.zeros(50)}})
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(AutoReIDError, match="not a readable checkpoint") as error:
            load_checkpoint(path)
        assert "\n" not in str(error.value)
    for value in ({"epoch": 1}, [1, 2], {"format": 0}):
        torch.save(value, path)
        with pytest.raises(AutoReIDError, match="not a checkpoint of this version"):
            load_checkpoint(path)


def test_a_checkpoint_is_data_never_code(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> Any:
            return Path.touch, (marker,)

    torch.save({"format": 1, "payload": Payload()}, path)
    with pytest.raises(AutoReIDError, match="not a readable checkpoint"):
        load_checkpoint(path)
    assert not marker.exists()


def test_a_folder_that_holds_a_run_is_not_started_again(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.start(SomeConfig(), "train")
    with pytest.raises(AutoReIDError, match="already holds a run: add --resume"):
        run.start(SomeConfig(), "train")
    with pytest.raises(AutoReIDError, match="holds a run of `train`, not of `search`"):
        run.recorded("search")


def test_a_run_refused_before_its_first_checkpoint_leaves_nothing_behind(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "runs" / "run")
    run.start(SomeConfig(), "train")
    with pytest.raises(AutoReIDError), run.session():
        raise AutoReIDError("data.root is not set")
    assert list(tmp_path.iterdir()) == []
    run.start(SomeConfig(), "train")
    with pytest.raises(KeyboardInterrupt), run.session():
        raise KeyboardInterrupt  # such a run is resumed
    assert run.config.exists()
    save_checkpoint(run.checkpoint, {"epoch": 1})
    with pytest.raises(AutoReIDError), run.session():
        raise AutoReIDError("loss is nan")
    assert run.config.exists()


def test_an_error_names_folders_that_cannot_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for path in (file, file / "run"):
        with pytest.raises(AutoReIDError, match="cannot write the run folder"):
            RunFolder(path).start(SomeConfig(), "train")
