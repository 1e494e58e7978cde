"""A run folder: where a run leaves its config, environment, log, events, checkpoints and results."""

import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml

from autoreid_fast.distributed.processes import LostProcessError, is_main
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import keep_as, write_json, write_text
from autoreid_fast.plugins import RECORD, import_recorded, imported_plugins
from autoreid_fast.runs.checkpoint import DamagedCheckpointError, load_checkpoint, save_checkpoint
from autoreid_fast.schema import Config, read_yaml

logger = logging.getLogger("autoreid_fast")


class _LogFile(logging.FileHandler):
    """A log that a full disk cuts short; the checkpoint, which matters, says so then."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class RunFolder:
    """The files of one run.

    ``config.yaml``, ``environment.json``, ``log.txt``, ``history.json``, ``events/`` (TensorBoard),
    ``checkpoints/`` (``last.pt``, the one before it as ``previous.pt``, and ``best.pt`` of a run that
    validates), the results ``genotype.json`` and ``metrics.json``, and for people to look at
    ``retrieval.json`` (`engine.retrieval`) and ``report/``.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.checkpoint = self.path / "checkpoints" / "last.pt"
        self.previous = self.path / "checkpoints" / "previous.pt"
        self.best = self.path / "checkpoints" / "best.pt"
        self.weights = self.path / "weights.safetensors"
        self.genotype = self.path / "genotype.json"
        self.environment = self.path / "environment.json"
        self.metrics = self.path / "metrics.json"
        self.history = self.path / "history.json"
        self.events = self.path / "events"
        self.features = self.path / "features"
        self.retrieval = self.path / "retrieval.json"
        self.report = self.path / "report"
        self._damaged = False

    def start(self, config: Config, command: str) -> None:
        """Make the folder and record what is about to run.

        Raises:
            AutoReIDError: the folder already holds a run, or cannot be written.
        """
        if self.config.exists():
            raise AutoReIDError(
                f"{self.path} already holds a run: add --resume to go on with it, or choose another"
            )
        self.record(config.model_dump(), command)

    def record(self, config: dict[str, Any], command: str) -> None:
        """Record ``config`` and the environment, in the place of what may be there.

        Raises:
            AutoReIDError: the folder cannot be written.
        """
        values = {"command": command, **plain(config)}
        if imported_plugins():
            values[RECORD] = list(imported_plugins())
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.environment, environment())
            write_text(self.config, yaml.safe_dump(values, sort_keys=False))
        except OSError as error:
            raise AutoReIDError(
                f"{self.path}: cannot write the run folder ({error.strerror}): choose another"
            ) from None

    def recorded(self, command: str | None = None) -> dict[str, Any]:
        """The resolved config that the run was started with; modules that it was started with are imported.

        Raises:
            AutoReIDError: the folder holds no run, or one of another command.
        """
        record = self._recorded()
        ran = record.pop("command", None)
        if command is not None and ran != command:
            raise AutoReIDError(f"{self.path} holds a run of `{ran}`, not of `{command}`")
        return record

    def command(self) -> str:
        """The command that the run is of. Raises AutoReIDError where the folder holds no run."""
        return str(self._recorded().get("command"))

    def _recorded(self) -> dict[str, Any]:
        if not self.config.is_file():
            raise AutoReIDError(
                f"{self.path} holds no run (no config.yaml in it): give the folder that --run named"
            )
        try:
            text = self.config.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise AutoReIDError(f"{self.config}: not YAML ({error})") from None
        record = read_yaml(text, str(self.config))
        if not isinstance(record, dict):
            raise AutoReIDError(f"{self.config}: not the config of a run")
        import_recorded(record, str(self.config))
        return dict(record)

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Append the package's log to ``log.txt`` while the block runs, an error that ends it included.

        In several processes the main one alone keeps the log.

        A run that is refused before its first checkpoint holds nothing worth keeping: it gives up its
        config.yaml, so that the command, put right, may use the folder.
        """
        if not is_main():
            yield
            return
        handler = _LogFile(self.path / "log.txt", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(handler)
        try:
            yield
        except BaseException as error:
            handler.emit(logger.makeRecord(logger.name, logging.ERROR, "", 0, repr(error), (), None))
            refused = isinstance(error, AutoReIDError) and not isinstance(error, LostProcessError)
            if refused and not self.checkpoint.exists():
                self.config.unlink(missing_ok=True)
            raise
        finally:
            logger.removeHandler(handler)
            with suppress(OSError):
                handler.close()

    def save(
        self, epoch: int, history: list[dict[str, Any]], state: dict[str, Any], best: bool = False
    ) -> None:
        """Keep the state after ``epoch`` epochs, and its history as JSON for people to read.

        The last one, if it is whole, is kept as the one before; with ``best`` this one is kept as the best.
        """
        if self.checkpoint.exists() and not self._damaged:
            keep_as(self.checkpoint, self.previous)
        save_checkpoint(self.best if best else self.checkpoint, {"epoch": epoch, "history": history, **state})
        if best:
            keep_as(self.best, self.checkpoint)  # in this order: killed between, the epoch is repeated
        self._damaged = False
        write_json(self.history, history)

    def load(self) -> dict[str, Any] | None:
        """The last state, or None where the run has not saved its first. Raises as ``last_state``."""
        return self.last_state() if self.checkpoint.exists() else None

    def last_state(self) -> dict[str, Any]:
        """The last state; where its file is damaged the one before, and a line in the log that says so.

        Raises:
            AutoReIDError: there is no checkpoint, none that is whole, or one of another format.
        """
        try:
            return load_checkpoint(self.checkpoint)
        except DamagedCheckpointError as error:
            if not self.previous.exists():
                raise
            state = load_checkpoint(self.previous)
            self._damaged = True
            logger.warning("%s: taking the one before it, after %s", error, position_of(state))
            return state


def position_of(state: dict[str, Any]) -> str:
    """Where in its run a checkpoint was written, as people say it."""
    losses = state.get("losses")
    return f"epoch {state['epoch']}" + ("" if losses is None else f" and {len(losses)} steps")


def plain(value: Any) -> Any:
    """A config's values as YAML has them; paths made absolute, for a run may be resumed from anywhere."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [plain(part) for part in value]
    return str(value.expanduser().absolute()) if isinstance(value, Path) else value


def environment() -> dict[str, Any]:
    """What a run ran on: versions, machine, devices and the commit of the checkout, where there is one."""
    packages = ("autoreid_fast", "torch", "numpy", "pillow", "triton")
    versions: dict[str, str | None] = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": versions,
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cpu_threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "commit": _commit(),
        "arguments": sys.argv[1:],
    }


def cpu_model() -> str:
    """The name of this machine's CPU and the number of its cores."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
