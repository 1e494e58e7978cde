"""A tiny synthetic data set, a finished search and a finished training on it, and forked processes."""

import runpy
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from tensorboard.summary.writer import event_file_writer

from autoreid_fast.cli import main
from autoreid_fast.data.synthetic import SyntheticConfig, generate

CommandLine = list[str]
Fork = Callable[..., "Forked"]

FORKED = Path(__file__).with_name("forked.py")

SEARCH = [
    *("--channels", "3", "--cells-per-block", "1", "1", "1", "1", "--embedding-dim", "16"),
    *("--epochs", "3", "--alpha.decay-epochs", "1", "2", "--batch.identities", "3", "--batch.images", "2"),
]
TRAIN = [
    *("--channels", "4", "--cells-per-block", "1", "1", "1", "1", "--embedding-dim", "16"),
    *("--epochs", "3", "--decay-epochs", "1", "2", "--batch.identities", "4", "--evaluate-every", "1"),
]


@pytest.fixture(autouse=True)
def _default_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Default run folders and caches are inside the test's temporary folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


@pytest.fixture(autouse=True)
def _no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip reports, which take longer than these tiny runs, except for the session's own runs below."""
    for command in ("demo", "evaluate", "search", "train"):
        monkeypatch.setattr(f"autoreid_fast.commands.{command}.draw_report", lambda folder: None)


@pytest.fixture(scope="session", autouse=True)
def _events_in_order() -> Iterator[None]:
    """Number TensorBoard's files from 1000: a reader sorts those of one second as text, 10 before 9."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(1000))
        yield


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic set: six training and four test identities, three cameras."""
    root = tmp_path_factory.mktemp("people") / "set"
    generate(root, SyntheticConfig(train_identities=6, test_identities=4, cameras=3, junk=4, distractors=4))
    return root


@pytest.fixture(scope="session")
def data(people: Path) -> CommandLine:
    """Options that read ``people`` at 128x32."""
    cache = people.parent / "cache"
    size = ("--data.height", "128", "--data.width", "32", "--device", "cpu")
    return ["--data.kind", "synthetic", "--data.root", str(people), "--data.cache-dir", str(cache), *size]


@pytest.fixture(scope="session")
def search_line(data: CommandLine) -> CommandLine:
    """``search`` of three epochs, without --run."""
    return ["search", *data, *SEARCH]


@pytest.fixture(scope="session")
def searched(search_line: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a finished search."""
    run = tmp_path_factory.mktemp("searched") / "run"
    assert main([*search_line, "--run", str(run)]) == 0
    return run


@pytest.fixture(scope="session")
def train_line(data: CommandLine, searched: Path) -> CommandLine:
    """``train`` of the searched network, without --run."""
    return ["train", *data, *TRAIN, "--network", str(searched)]


@pytest.fixture(scope="session")
def trained(train_line: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of a finished training."""
    run = tmp_path_factory.mktemp("trained") / "run"
    assert main([*train_line, "--run", str(run)]) == 0
    return run


class Forked:
    """A command line, or a script and its arguments, in a process of its own."""

    def __init__(
        self,
        forks: ForkServerContext,
        folder: Path,
        arguments: Sequence[object],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start the process; ``folder`` gets files with its output."""
        folder.mkdir(parents=True, exist_ok=True)
        self._output, self._errors = folder / "output", folder / "errors"
        job = {
            "arguments": [str(argument) for argument in arguments],
            "environment": dict(environment or {}),
            "output": str(self._output),
            "errors": str(self._errors),
        }
        self._process = forks.Process(target=runpy.run_path, args=(str(FORKED), {"JOB": job}, "__main__"))
        self._process.start()

    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.is_alive()

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.kill()

    def wait(self) -> tuple[int, str, str]:
        """Wait for the end; returns the exit status (negative: a signal), standard output and error."""
        self._process.join()
        status = self._process.exitcode
        assert status is not None
        texts = (path.read_text() if path.exists() else "" for path in (self._output, self._errors))
        return (status, *texts)


@pytest.fixture(scope="session")
def fork(forks: ForkServerContext, tmp_path_factory: pytest.TempPathFactory) -> Fork:
    """Start a command line, or a script and its arguments, in a process of its own."""

    def start(arguments: Sequence[object], environment: Mapping[str, str] | None = None) -> Forked:
        return Forked(forks, tmp_path_factory.mktemp("forked"), arguments, environment)

    return start


@pytest.fixture(scope="session")
def fork_group(fork: Fork) -> Callable[[Sequence[object]], list[Forked]]:
    """Start two processes with the environment that torchrun sets; one may end without the other."""

    def start(arguments: Sequence[object]) -> list[Forked]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return [fork(arguments, group | {"RANK": str(rank)}) for rank in range(2)]

    return start
