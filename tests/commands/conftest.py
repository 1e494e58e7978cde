"""A tiny synthetic set, and one search and one training on it that were left alone."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from autoreid_fast.cli import main
from autoreid_fast.data.synthetic import SyntheticConfig, generate

CommandLine = list[str]

SEARCH = [
    *("--channels", "3", "--cells-per-block", "1", "1", "1", "1", "--embedding-dim", "16"),
    *("--epochs", "3", "--alpha.decay-epochs", "1", "2", "--batch.identities", "3", "--batch.images", "2"),
]
TRAIN = [
    *("--channels", "4", "--cells-per-block", "1", "1", "1", "1", "--embedding-dim", "16"),
    *("--epochs", "3", "--decay-epochs", "1", "2", "--batch.identities", "4", "--evaluate-every", "1"),
]


@pytest.fixture(autouse=True)
def _nothing_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Default run folders and caches fall into the test's own folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


@pytest.fixture(autouse=True)
def _few_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report takes longer than these tiny runs; those of the session's own runs below are drawn."""
    for command in ("demo", "evaluate", "search", "train"):
        monkeypatch.setattr(f"autoreid_fast.commands.{command}.draw_report", lambda folder: None)


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six identities to train on and four to find, three cameras."""
    root = tmp_path_factory.mktemp("people") / "set"
    generate(root, SyntheticConfig(train_identities=6, test_identities=4, cameras=3, junk=4, distractors=4))
    return root


@pytest.fixture(scope="session")
def data(people: Path) -> CommandLine:
    """The options that read ``people`` at 128x32."""
    cache = people.parent / "cache"
    size = ("--data.height", "128", "--data.width", "32", "--device", "cpu")
    return ["--data.kind", "synthetic", "--data.root", str(people), "--data.cache-dir", str(cache), *size]


@pytest.fixture(scope="session")
def search_line(data: CommandLine) -> CommandLine:
    """``search`` of three epochs, but for --run."""
    return ["search", *data, *SEARCH]


@pytest.fixture(scope="session")
def searched(search_line: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a finished search."""
    run = tmp_path_factory.mktemp("searched") / "run"
    assert main([*search_line, "--run", str(run)]) == 0
    return run


@pytest.fixture(scope="session")
def train_line(data: CommandLine, searched: Path) -> CommandLine:
    """``train`` of the searched network, but for --run."""
    return ["train", *data, *TRAIN, "--network", str(searched)]


@pytest.fixture(scope="session")
def trained(train_line: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a finished training."""
    run = tmp_path_factory.mktemp("trained") / "run"
    assert main([*train_line, "--run", str(run)]) == 0
    return run


@pytest.fixture(scope="session")
def start() -> Callable[[CommandLine], subprocess.Popen[bytes]]:
    """Start a command line in a process of its own, on one thread as the tests are."""

    def start(arguments: CommandLine) -> subprocess.Popen[bytes]:
        program = "import sys; from autoreid_fast.cli import main; sys.exit(main(sys.argv[1:]))"
        one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            env=os.environ | one_thread,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    return start
