"""Run folder: config, environment, log, events, checkpoints and results of one run."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import JsonValue

from autoreid_fast.distributed.group import on_main
from autoreid_fast.distributed.processes import LostProcessError
from autoreid_fast.errors import AutoReIDError, describe_error
from autoreid_fast.files import cannot_write, keep_as, write_json, write_text
from autoreid_fast.models.precision import in_float32
from autoreid_fast.registry.plugins import RECORD, import_recorded, imported_plugins
from autoreid_fast.runs.checkpoint import (
    DamagedCheckpointError,
    MissingCheckpointError,
    load_checkpoint,
    save_checkpoint,
)
from autoreid_fast.runs.environment import environment
from autoreid_fast.runs.lock import LOCK, OWNER, locked
from autoreid_fast.schema import Config, check, from_values, read_yaml
from autoreid_fast.stopping import hangups_ignored
from autoreid_fast.streams import LineFormatter

logger = logging.getLogger("autoreid_fast")

LOGS = {".txt", ".log", ".out", ".err"}
"""Files that may lie in the folder of a new run: schedulers write their logs there."""


class _LogFile(logging.FileHandler):
    """Log file whose errors are ignored: on a full disk the checkpoint, which matters more, raises one."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class RunFolder:
    """The files of one run.

    ``config.yaml``, ``environment.json``, ``log.txt``, ``history.json``, ``events/`` (TensorBoard),
    ``checkpoints/`` (``last.pt``, ``previous.pt``, and ``best.pt`` of a run that validates), the results
    ``genotype.json``, ``untrained.json`` and ``metrics.json``, and for readers ``retrieval.json`` and
    ``report/``.

    Args:
        path: The folder; it need not exist.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        self.config = self.path / "config.yaml"
        self.checkpoint = self.path / "checkpoints" / "last.pt"
        self.previous = self.path / "checkpoints" / "previous.pt"
        self.best = self.path / "checkpoints" / "best.pt"
        self.weights = self.path / "weights.safetensors"
        self.genotype = self.path / "genotype.json"
        self.environment = self.path / "environment.json"
        self.metrics = self.path / "metrics.json"
        self.untrained = self.path / "untrained.json"
        self.history = self.path / "history.json"
        self.events = self.path / "events"
        self.features = self.path / "features"
        self.retrieval = self.path / "retrieval.json"
        self.report = self.path / "report"
        self.log = self.path / "log.txt"
        self.chosen: Path | None = None
        self._damaged = False
        self._made: list[Path] | None = None  # folders that `start` made

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Self:
        """Return the run of a folder, or of one of its checkpoints, which `last_state` then reads."""
        path = Path(path).expanduser()
        if path.suffix != ".pt" or path.parent.name != "checkpoints":
            return cls(path)
        run = cls(path.parents[1])
        run.chosen = path if path.name != run.checkpoint.name else None
        return run

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint: the last, the previous or the best one."""
        return bool(self._checkpoints())

    def start(self, config: Config, command: str) -> None:
        """Create the folder and record the run that is about to start.

        If that or the first `session` fails before there is a checkpoint, all that was written is removed.

        Raises:
            AutoReIDError: the folder already holds a run, or results of one, or cannot be written.
        """
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        self._make()
        with locked(self.path):
            self._require_free()
            self._made = made
            for of_another_run in (self.untrained, self.retrieval):
                of_another_run.unlink(missing_ok=True)
            try:
                self.record(config.model_dump(), command)
            except AutoReIDError:
                self._undo_start()
                raise

    def _require_free(self) -> None:
        """Refuse a folder whose results would be mixed with those of another run."""
        if self.config.exists():
            raise AutoReIDError(
                f"{self.path} already holds a run: add --resume to resume it, or choose another folder"
            )
        left = [path.name for path in (*self._checkpoints(), *self._results())]
        if left:
            raise AutoReIDError(
                f"{self.path} holds {', '.join(left)} of a run whose config.yaml is gone: restore it and add "
                "--resume, or choose another folder"
            )
        foreign = self._foreign()
        if foreign:
            shown = f"{', '.join(foreign[:3])}{' and more' * (len(foreign) > 3)}"
            raise AutoReIDError(
                f"{self.path} holds {shown}, which no run has written; choose a new folder, or an empty one"
            )

    def _foreign(self) -> list[str]:
        """Names of what no run has written: a data set, for instance. Logs and hidden files are nobody's."""
        files = (self.environment, self.log, self.genotype, self.untrained)  # of a start that failed
        own = {path.name for path in (*files, self.checkpoint.parent, self.events, self.report)}
        return sorted(
            path.name
            for path in self.path.iterdir()
            if path.name not in own and not path.name.startswith(".") and path.suffix not in LOGS
        )

    def _results(self) -> list[Path]:
        """The results that there are, of epochs that have been saved."""
        results = (self.history, self.metrics, self.weights, self.features)
        return [path for path in results if path.exists()]

    def _undo_start(self) -> None:
        """Remove all that a run has written since `start`."""
        if self._made is None:
            return
        folders = (self.checkpoint.parent, self.events, self.features, self.report)
        files = (self.environment, self.log, self.genotype, self.untrained, self.history, self.retrieval)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        for file in (*files, self.path / LOCK, self.path / OWNER, self.config):
            file.unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            for folder in self._made:
                folder.rmdir()
        self._made = None

    def record(self, config: dict[str, Any], command: str) -> None:
        """Write ``config`` and the environment, replacing what is there.

        Raises:
            AutoReIDError: the folder cannot be written.
        """
        values = {"command": command, **plain(config)}
        if imported_plugins():
            values[RECORD] = list(imported_plugins())
        self._make()
        write_json(self.environment, environment())
        write_text(self.config, yaml.safe_dump(values, sort_keys=False))

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
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
        except OSError as error:
            raise AutoReIDError(f"{self.config}: cannot be read ({error.strerror})") from None
        record = read_yaml(text, str(self.config))
        if not isinstance(record, dict):
            raise AutoReIDError(f"{self.config}: not the config of a run")
        return dict(check(record, dict[str, JsonValue], str(self.config)))

    @contextmanager
    def session(self) -> Iterator[None]:
        """Work on the run inside the block: lock the folder, and append the package's log to ``log.txt``.

        Only the main process does so. Networks are built in float32. No process ends because its terminal
        goes away. The error that ends the block is logged. A run that was started by this process and is
        refused before its first checkpoint leaves nothing behind, so that the corrected command can use the
        folder.

        Raises:
            AutoReIDError: another process works on the run, or the folder cannot be written.
        """
        with hangups_ignored(), in_float32(), ExitStack() as stack:
            on_main(lambda: self._enter(stack))
            yield

    def _enter(self, stack: ExitStack) -> None:
        stack.enter_context(locked(self.path))
        stack.enter_context(self._logging())

    @contextmanager
    def _logging(self) -> Iterator[None]:
        try:
            handler = _LogFile(self.log, encoding="utf-8")
        except OSError as error:
            self._undo_start()
            raise cannot_write(self.log, error) from None
        handler.setFormatter(LineFormatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(handler)
        level = logger.level
        logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
        try:
            yield
        except BaseException as error:
            handler.emit(logger.makeRecord(logger.name, logging.ERROR, "", 0, _ending(error), (), None))
            refused = isinstance(error, AutoReIDError | OSError) and not isinstance(error, LostProcessError)
            if refused and not self.has_checkpoint:
                self._undo_start()
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
        """Load the last state; None if the run has not saved one yet.

        Raises:
            AutoReIDError: as for `last_state`, or all checkpoints are lost.
        """
        if self.has_checkpoint:
            return self.last_state()
        if results := self._results():
            raise AutoReIDError(
                f"{self.checkpoint}: gone, and there is no other checkpoint, though {results[0].name} shows "
                "that epochs have ended; restore it, or start another run"
            )
        return None

    def last_state(self) -> dict[str, Any]:
        """Load the last state, or with a warning the one before, if the file is damaged or gone.

        Raises:
            AutoReIDError: there is no checkpoint, none that is intact, or one of another format.
        """
        if self.chosen is not None:
            return load_checkpoint(self.chosen)
        unusable: list[AutoReIDError] = []
        for path in (self.checkpoint, self.previous, self.best):
            try:
                state = load_checkpoint(path)
            except (DamagedCheckpointError, MissingCheckpointError) as error:
                unusable.append(error)
                continue
            if unusable:
                self._damaged = True
                position = position_of(state)
                logger.warning("%s: using the %s checkpoint, after %s", unusable[0], path.stem, position)
            return state
        if not self.has_checkpoint:
            raise AutoReIDError(
                f"{unusable[0]}; if its run has not finished an epoch, resume it with --resume"
            )
        raise unusable[0]

    def _checkpoints(self) -> list[Path]:
        return [path for path in (self.checkpoint, self.previous, self.best) if path.exists()]


@contextmanager
def open_run(folder: str | os.PathLike[str] | RunFolder, config: Config, command: str) -> Iterator[RunFolder]:
    """Open a run folder for the block: start a run in it, or resume the one that it holds.

    A `RunFolder` is used as it is: it is already started and in a session.

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
    with run.session():
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


def _ending(error: BaseException) -> str:
    """The last line of a log."""
    return str(error) if isinstance(error, AutoReIDError) else f"ended by {describe_error(error)}"


def position_of(state: dict[str, Any]) -> str:
    """Describe where in its run a checkpoint was written: "epoch 3" or "20 steps of epoch 4"."""
    losses = state.get("losses")
    return position(state["epoch"], None if losses is None else len(losses))


def position(epoch: int, steps: int | None = None) -> str:
    """Describe a position in a run: ``epoch`` epochs are done, and ``steps`` of the next one."""
    return f"epoch {epoch}" if steps is None else f"{steps} step{'s' * (steps != 1)} of epoch {epoch + 1}"


def plain(value: Any) -> Any:
    """Convert a config's values to those of YAML; paths become absolute, so that a run resumes anywhere."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return [plain(part) for part in value]
    return str(value.expanduser().absolute()) if isinstance(value, Path) else value
