"""Checkpointing: periodic saves, resume, stop on signals."""

import logging
import math
import signal
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

from torch import Tensor, nn

from autoreid_fast.distributed.collectives import max_over_processes, mean_over_processes
from autoreid_fast.distributed.group import on_main
from autoreid_fast.distributed.processes import is_main
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import write_json
from autoreid_fast.runs.checkpoint import mismatch, restore_random_state
from autoreid_fast.runs.folder import RunFolder, position, position_of
from autoreid_fast.stopping import InterruptedRun, StopRequest
from autoreid_fast.training.epoch import Epoch, NotFiniteError

logger = logging.getLogger("autoreid_fast")

SAVE_EVERY = 600.0
"""Seconds between checkpoints inside an epoch: the most work that a killed run repeats."""
_SAVE_DUE, _STOP = 1, 2
ADDED_LATER = {"genotype"}
"""Names in the checkpointed modules and optimisers that checkpoints of earlier versions lack."""

EpochRecord = dict[str, Any]
"""Values of one finished epoch, as history.json has them."""


class Stateful(Protocol):
    """Anything whose state a checkpoint holds: modules and optimisers."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


class Checkpointer:
    """Save a run to its folder, restore it, and stop it when a signal asks for that.

    Args:
        run: Run folder.
        checkpointed: Modules and optimisers that a checkpoint holds, by name.
        stop: Request to stop, set by a signal.
        advice: What to do if a loss or a weight is not finite, for the error.

    Attributes:
        history: Record of each finished epoch.
    """

    def __init__(
        self, run: RunFolder, checkpointed: Mapping[str, Stateful], stop: StopRequest, advice: str
    ) -> None:
        self.history: list[EpochRecord] = []
        self._run = run
        self._checkpointed = checkpointed
        self._stop = stop
        self._advice = advice
        self._losses: Tensor | None = None
        self._loss_names: tuple[str, ...] = ()
        self._seconds_before = 0.0  # of the current epoch, before the run was interrupted
        self._restart_hint = "no checkpoint was written yet"
        self._epoch_start = self._last_save = time.perf_counter()

    def restore(self, epochs: int) -> None:
        """Restore the run's last checkpoint, if there is one; ``epochs`` of the whole run is for the log.

        Raises:
            AutoReIDError: the checkpoint does not fit the run.
        """
        state = on_main(self._run.load)
        if state is None:
            return
        for name, stateful in self._checkpointed.items():
            if name in ADDED_LATER and name not in state:
                continue
            try:
                stateful.load_state_dict(state[name])
            except AutoReIDError:
                raise
            except (KeyError, RuntimeError, ValueError) as error:
                raise AutoReIDError(
                    f"{self._run.checkpoint}: does not fit this run's {name} ({mismatch(error)}); restore "
                    "the checkpoint that belongs to config.yaml, or start another run"
                ) from None
        restore_random_state(state)
        self.history = state["history"]
        self._losses = state.get("losses")
        self._loss_names = tuple(state.get("loss_names", ()))
        self._seconds_before = state.get("seconds", 0.0)
        # the run may have been killed after the checkpoint and before its history was written
        on_main(lambda: write_json(self._run.history, self.history))
        self._set_restart_hint(state)
        logger.info("resuming after %s; the run has %d epochs", position_of(state), epochs)

    def begin_epoch(self, skip_nonfinite: bool) -> Epoch:
        """Begin the next epoch, or continue the one that was interrupted."""
        self._epoch_start = time.perf_counter() - self._seconds_before
        return Epoch(len(self.history), self.after_step, skip_nonfinite, self._loss_names, self._losses)

    def end_epoch(self, record: EpochRecord, best: bool) -> float:
        """Add the record of a finished epoch to the history and save; return the seconds it took.

        Args:
            record: Values of the epoch.
            best: Keep this checkpoint as the best one, too.
        """
        seconds = time.perf_counter() - self._epoch_start
        self._losses, self._loss_names, self._seconds_before = None, (), 0.0
        self.history.append({"epoch": len(self.history) + 1, **record, "seconds": round(seconds, 2)})
        self._save({}, best)
        return seconds

    def after_step(self, epoch: Epoch) -> None:
        """Save inside an epoch if a save is due or the run is to stop.

        Raises:
            InterruptedRun: a process has received a signal to stop.
        """
        due = is_main() and time.perf_counter() - self._last_save > SAVE_EVERY
        action = max_over_processes(_STOP if self._stop.signal is not None else _SAVE_DUE if due else 0)
        if not action:
            return
        epoch.check_losses()
        inside = {
            "losses": mean_over_processes(epoch.losses()),
            "loss_names": list(epoch.loss_names),
            "seconds": time.perf_counter() - self._epoch_start,
        }
        self._save(inside)
        if action == _STOP:
            self._interrupt(position(epoch.number, epoch.done))

    def after_epoch(self) -> None:
        """Stop between two epochs if the run is to stop.

        Raises:
            InterruptedRun: a process has received a signal to stop.
        """
        if max_over_processes(_STOP if self._stop.signal is not None else 0):
            self._interrupt(position(len(self.history)))

    def explain(self, error: NotFiniteError) -> AutoReIDError:
        """Make the error for the user: what to do, and which checkpoint is good."""
        return AutoReIDError(f"{error.reason}: {self._advice}; {self._restart_hint}{error.images}")

    def _save(self, position: dict[str, Any], best: bool = False) -> None:
        epoch = len(self.history)
        self._check_weights(epoch)
        state = {name: stateful.state_dict() for name, stateful in self._checkpointed.items()} | position
        on_main(partial(self._run.save, epoch, self.history, state, best))
        self._set_restart_hint({"epoch": epoch, **position})
        self._last_save = time.perf_counter()

    def _check_weights(self, epoch: int) -> None:
        """Refuse to replace a good checkpoint by one whose weights are not finite."""
        models = (one for one in self._checkpointed.values() if isinstance(one, nn.Module))
        weights = [parameter.detach() for model in models for parameter in model.parameters()]
        norm = float(nn.utils.get_total_norm(weights))
        if not math.isfinite(norm):
            raise self.explain(NotFiniteError(f"the norm of the weights is {norm} after epoch {epoch}"))

    def _set_restart_hint(self, state: dict[str, Any]) -> None:
        self._restart_hint = f"the last good checkpoint is {self._run.checkpoint}, after {position_of(state)}"

    def _interrupt(self, after: str) -> None:
        logger.info("stopped after %s; saved to %s", after, self._run.checkpoint)
        raise InterruptedRun(self._stop.signal or signal.SIGTERM)
