"""Tiny runs for fault injection, and the table of faults that ends the tests' output."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from autoreid_fast.cli import main

LONG = "AUTOREID_FAST_LONG"

CommandLine = list[str]
Inject = Callable[..., None]


@pytest.fixture(scope="session")
def long() -> bool:
    """Whether to run the long forms (`make reliability`)."""
    return os.environ.get(LONG) == "1"


@pytest.fixture
def inject(record_property: Callable[[str, object], None]) -> Inject:
    """Count injected faults by name; they are survived if the test passes."""

    def count(fault: str, times: int = 1) -> None:
        record_property("fault", (fault, times))

    return count


@pytest.fixture
def note(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Add a line below the table."""
    return lambda line: record_property("note", line)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    ended = {name: terminalreporter.stats.get(name, []) for name in ("passed", "failed")}
    injected, survived, notes = Counter[str](), Counter[str](), []
    for name, reports in ended.items():
        for key, value in (item for report in reports for item in report.user_properties):
            if key == "note":
                notes.append(value)
            elif key == "fault":
                fault, times = value
                injected[fault] += times
                survived[fault] += times * (name == "passed")
    if injected:
        terminalreporter.section("reliability")
        terminalreporter.write_line(f"{'fault':<56}{'injected':>9}{'survived':>9}{'lost':>6}")
        for fault, times in sorted(injected.items()):
            terminalreporter.write_line(
                f"{fault:<56}{times:>9}{survived[fault]:>9}{times - survived[fault]:>6}"
            )
    for line in notes:
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep default folders inside the test's; skip reports, which take longer than these runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    for command in ("search", "train"):
        monkeypatch.setattr(f"autoreid_fast.commands.{command}.draw_report", lambda folder: None)


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four identities to train on and three to find, two cameras, three images each: colored noise."""
    root = tmp_path_factory.mktemp("people") / "set"
    random = np.random.default_rng(0)
    splits = {"train": range(1, 5), "query": range(5, 8), "gallery": range(5, 8)}
    for split, pids in splits.items():
        for pid in pids:
            for camera in (1, 2):
                for shot in range(3):
                    pixels = random.integers(0, 100, (64, 32, 3), dtype=np.uint8)
                    pixels[..., pid % 3] += 20 * np.uint8(pid)
                    path = root / split / f"{pid}_{camera}_{shot}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(path)
    return root


@pytest.fixture(scope="session")
def data(people: Path) -> CommandLine:
    """Options that read ``people``."""
    pattern = r"(?P<split>\w+)/(?P<pid>\d)_(?P<camera>\d)"
    where = ["--data.kind", "folder", "--data.root", str(people), "--data.pattern", pattern]
    size = ["--data.height", "64", "--data.width", "32", "--device", "cpu"]
    return [*where, *size, "--data.cache-dir", str(people.parent / "cache")]


SMALL = ["--cells-per-block", "1", "1", "1", "1", "--embedding-dim", "8", "--batch.identities", "2"]


@pytest.fixture(scope="session")
def search_line(data: CommandLine) -> CommandLine:
    """Command line, without --run, of a search of three epochs of three step pairs."""
    return [
        "search",
        *data,
        *SMALL,
        "--space",
        "standard",
        "--channels",
        "3",
        "--epochs",
        "3",
        "--batch.images",
        "2",
    ]


@pytest.fixture(scope="session")
def train_line(data: CommandLine) -> CommandLine:
    """Command line, without --run, of a training of three epochs of six steps, each evaluated."""
    network = ["--network", "resnet18", "--channels", "2", "--learning-rate", "0.001"]
    epochs = ["--epochs", "3", "--decay-epochs", "2", "--evaluate-every", "1", "--batch.images", "2"]
    return ["train", *data, *SMALL, *network, *epochs]


@pytest.fixture(scope="session")
def lines(search_line: CommandLine, train_line: CommandLine) -> dict[str, CommandLine]:
    """Both command lines, by command."""
    return {"search": search_line, "train": train_line}


@pytest.fixture(scope="session")
def undisturbed(lines: dict[str, CommandLine], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders of both, without faults."""
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, line in lines.items():
            patch.setattr(f"autoreid_fast.commands.{name}.draw_report", lambda folder: None)
            folders[name] = tmp_path_factory.mktemp(name) / "run"
            assert main([*line, "--run", str(folders[name])]) == 0
    return folders


@pytest.fixture(scope="session")
def same_end() -> Callable[[Path, Path], bool]:
    """Whether two runs ended with the same checkpoint and results, bit for bit, and without leftovers."""

    def alike(run: Path, other: Path) -> bool:
        states = [
            torch.load(folder / "checkpoints" / "last.pt", weights_only=True) for folder in (run, other)
        ]
        results = [name for name in ("metrics.json", "genotype.json") if (other / name).exists()]
        same = all((run / name).read_bytes() == (other / name).read_bytes() for name in results)
        return same and equal(*states) and not list(run.rglob("*.tmp"))

    return alike


def equal(one: Any, other: Any) -> bool:
    """Whether two values are equal bit for bit, except for seconds."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            equal(one[name], other[name]) for name in one if name != "seconds"
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return bool(one == other)


@pytest.fixture
def at_each_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[int], None]], None]]:
    """Install a function to call in the middle of every step of the next runs, with its number from 0."""
    from autoreid_fast.training.epoch import Epoch

    real = Epoch.add

    def install(function: Callable[[int], None]) -> None:
        steps = iter(range(10**9))

        def add(self: Epoch, **losses: torch.Tensor) -> None:
            function(next(steps))
            real(self, **losses)

        monkeypatch.setattr(Epoch, "add", add)

    yield install
