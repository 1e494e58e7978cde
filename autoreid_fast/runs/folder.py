"""Run folder: config, environment, log, events, checkpoints and results of one run."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from autoreid_fast.distributed.group import on_main
from autoreid_fast.distributed.processes import LostProcessError, is_main
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import keep_as, write_json, write_text
from autoreid_fast.registry.plugins import RECORD, import_recorded, imported_plugins
from autoreid_fast.runs.checkpoint import DamagedCheckpointError, load_checkpoint, save_checkpoint
from autoreid_fast.runs.environment import environment
from autoreid_fast.schema import Config, from_values, read_yaml

logger = logging.getLogger("autoreid_fast")


class _LogFile(logging.FileHandler):
    """Log file whose errors are ignored: on a full disk the checkpoint, which matters more, raises one."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class RunFolder:
    """The files of one run.

    ``config.yaml``, ``environment.json``, ``log.txt``, ``history.json``, ``events/`` (TensorBoard),
    ``checkpoints/`` (``last.pt``, ``previous.pt``, and ``best.pt`` of a run that validates), the results
    ``genotype.json`` and ``metrics.json``, and for readers ``retrieval.json`` and ``report/``.

    Args:
        path: The folder; it need not exist.
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
        """Create the folder and record the run that is about to start.

        Raises:
            AutoReIDError: the folder already holds a run, or cannot be written.
        """
        if self.config.exists():
            raise AutoReIDError(
                f"{self.path} already holds a run: add --resume to resume it, or choose another folder"
            )
        self.record(config.model_dump(), command)

    def record(self, config: dict[str, Any], command: str) -> None:
        """Write ``config`` and the environment, replacing what is there.

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
                f"{self.path}: cannot write the run folder ({error.strerror}); choose another folder"
            ) from None

    def recorded(self, command: str | None = None) -> dict[str, Any]:
        """Read the config that the run was started with.

        With ``command``, the plugins that the run was started with are imported, so that the config can be
        validated.

        Raises:
            AutoReIDError: the folder holds no run, or one of another command.
        """
        record = self._recorded()
        recorded_command = record.pop("command", None)
        plugins = record.pop(RECORD, [])
        if command is not None:
            if recorded_command != command:
                raise AutoReIDError(f"{self.path} holds a run of `{recorded_command}`, not of `{command}`")
            import_recorded(plugins, str(self.config))
        return record

    def command(self) -> str:
        """Read the command that the run was started with.

        Raises:
            AutoReIDError: the folder holds no run.
        """
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
        return dict(record)

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Append the package's log to ``log.txt`` inside the block, and the error that ends it.

        Only the main process writes a log. A run that fails before its first checkpoint holds nothing worth
        keeping: its config.yaml is removed, so that the corrected command can use the folder.
        """
        if not is_main():
            yield
            return
        handler = _LogFile(self.path / "log.txt", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(handler)
        level = logger.level
        logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
        try:
            yield
        except BaseException as error:
            handler.emit(logger.makeRecord(logger.name, logging.ERROR, "", 0, repr(error), (), None))
            refused = isinstance(error, AutoReIDError) and not isinstance(error, LostProcessError)
            if refused and not self.checkpoint.exists():
                self.config.unlink(missing_ok=True)
            raise
        finally:
            logger.setLevel(level)
            logger.removeHandler(handler)
            with suppress(OSError):
                handler.close()

    def save(
        self, epoch: int, history: list[dict[str, Any]], state: dict[str, Any], best: bool = False
    ) -> None:
        """Save the state after ``epoch`` epochs, and the history as JSON.

        The last checkpoint, if it is intact, becomes the previous one.

        Args:
            epoch: Finished epochs.
            history: Record of each of them.
            state: Tensors, numbers, strings and containers of them.
            best: Keep this checkpoint as the best one, too.
        """
        if self.checkpoint.exists() and not self._damaged:
            keep_as(self.checkpoint, self.previous)
        save_checkpoint(self.best if best else self.checkpoint, {"epoch": epoch, "history": history, **state})
        if best:
            keep_as(self.best, self.checkpoint)  # in this order: killed in between, the epoch is repeated
        self._damaged = False
        write_json(self.history, history)

    def load(self) -> dict[str, Any] | None:
        """Load the last state; None if the run has no checkpoint.

        Raises:
            AutoReIDError: as for `last_state`.
        """
        return self.last_state() if self.checkpoint.exists() else None

    def last_state(self) -> dict[str, Any]:
        """Load the last state, or the previous one, with a warning, if the file is damaged.

        Raises:
            AutoReIDError: there is no checkpoint, none that is intact, or one of another format.
        """
        try:
            return load_checkpoint(self.checkpoint)
        except DamagedCheckpointError as error:
            if not self.previous.exists():
                raise
            state = load_checkpoint(self.previous)
            self._damaged = True
            logger.warning("%s: using the previous checkpoint, after %s", error, position_of(state))
            return state


def require_config(config: object, config_class: type[Config]) -> None:
    """Raise AutoReIDError unless ``config`` is a ``config_class``."""
    if not isinstance(config, config_class):
        raise AutoReIDError(f"config is a {type(config).__name__}; expected a {config_class.__name__}")


@contextmanager
def open_run(folder: str | os.PathLike[str] | RunFolder, config: Config, command: str) -> Iterator[RunFolder]:
    """Open a run folder for the block: start a run in it, or resume the one that it holds.

    A `RunFolder` is used as it is: it has been started, and logs, already.

    Raises:
        AutoReIDError: the folder holds a run of another command or config, or cannot be written.
    """
    if isinstance(folder, RunFolder):
        yield folder
        return
    if not isinstance(folder, str | os.PathLike) or not str(folder):
        raise AutoReIDError(f"folder is {folder!r}; expected the path of a run folder")
    run = RunFolder(folder)
    on_main(lambda: _start_or_check(run, config, command))
    with run.logging():
        yield run


def _start_or_check(run: RunFolder, config: Config, command: str) -> None:
    if not run.config.exists():
        run.start(config, command)
        return
    recorded = plain(from_values(type(config), run.recorded(command), str(run.config)).model_dump())
    for field, value in plain(config.model_dump()).items():
        if recorded[field] != value:
            raise AutoReIDError(
                f"{run.path} holds a run with another config ({field}: {recorded[field]}, now {value}); "
                "choose another folder"
            )


def position_of(state: dict[str, Any]) -> str:
    """Describe where in its run a checkpoint was written: "epoch 3 and 20 steps"."""
    losses = state.get("losses")
    return f"epoch {state['epoch']}" + ("" if losses is None else f" and {len(losses)} steps")


def plain(value: Any) -> Any:
    """Convert a config's values to those of YAML; paths become absolute, so that a run resumes anywhere."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [plain(part) for part in value]
    return str(value.expanduser().absolute()) if isinstance(value, Path) else value
