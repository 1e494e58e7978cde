"""What keeps a run's work: it restores the state, saves it when due, stops where asked to."""

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
from autoreid_fast.runs.checkpoint import misfit, restore_random_state
from autoreid_fast.runs.folder import RunFolder, position_of
from autoreid_fast.stopping import InterruptedRun, StopRequest
from autoreid_fast.training.epoch import Epoch, NotFiniteError

logger = logging.getLogger("autoreid_fast")

SAVE_EVERY = 600.0
"""Seconds after which a checkpoint is written inside an epoch: the most that a killed run repeats."""
DUE, STOP = 1, 2

EpochRecord = dict[str, Any]


class Stateful(Protocol):
    """Anything whose state a checkpoint holds: modules and optimisers."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


class Keeper:
    """The checkpoints of ``run``, which hold ``parts``, the history and the position in the epoch under way.

    ``history`` has a record for each finished epoch; ``losses`` those of the steps of the next one, if it was
    begun, which took ``seconds`` so far.
    """

    def __init__(self, run: RunFolder, parts: Mapping[str, Stateful], stop: StopRequest) -> None:
        self.history: list[EpochRecord] = []
        self.losses: Tensor | None = None
        self.seconds = 0.0
        self._run = run
        self._parts = parts
        self._stop = stop
        self._good = "no checkpoint was written yet"
        self._begin = self._saved = time.perf_counter()

    def restore(self, epochs: int) -> None:
        """Go on from the run's last checkpoint, if there is one.

        Raises:
            AutoReIDError: it is not of this run.
        """
        state = on_main(self._run.load)
        if state is None:
            return
        for name, part in self._parts.items():
            try:
                part.load_state_dict(state[name])
            except (KeyError, RuntimeError, ValueError) as error:
                raise AutoReIDError(
                    f"{self._run.checkpoint}: not of this run's {name} ({misfit(error)}); put back the "
                    "checkpoint that belongs to config.yaml, or start another run"
                ) from None
        restore_random_state(state)
        self.history = state["history"]
        self.losses, self.seconds = state.get("losses"), state.get("seconds", 0.0)
        # the run may have been killed between the checkpoint and this
        on_main(lambda: write_json(self._run.history, self.history))
        self._good = f"the last good checkpoint is {self._run.checkpoint}, after {position_of(state)}"
        logger.info("resuming after %s of %d", position_of(state), epochs)

    def begin(self) -> Tensor | None:
        """Begin the next epoch, or go on with it: the losses of the steps that are done."""
        self._begin = time.perf_counter() - self.seconds
        return self.losses

    def finish(self, record: EpochRecord, best: bool) -> float:
        """Add the record of the epoch that has ended to the history, and save; the seconds that it took."""
        seconds = time.perf_counter() - self._begin
        self.losses, self.seconds = None, 0.0
        self.history.append({"epoch": len(self.history) + 1, **record, "seconds": round(seconds, 2)})
        self._save({}, best)
        return seconds

    def after_step(self, epoch: Epoch) -> None:
        """Save inside an epoch where that is due, or where the run is to stop.

        Raises:
            InterruptedRun: a signal has come, to this process or another one.
        """
        due = is_main() and time.perf_counter() - self._saved > SAVE_EVERY
        wanted = max_over_processes(STOP if self._stop.signal is not None else DUE if due else 0)
        if not wanted:
            return
        epoch.look()
        losses = mean_over_processes(epoch.losses())
        self._save({"losses": losses, "seconds": time.perf_counter() - self._begin})
        if wanted == STOP:
            self._end(f"epoch {epoch.number} and {epoch.done} steps")

    def after_epoch(self) -> None:
        """Raises InterruptedRun as ``after_step``."""
        if max_over_processes(STOP if self._stop.signal is not None else 0):
            self._end(f"epoch {len(self.history)}")

    def explain(self, error: NotFiniteError) -> AutoReIDError:
        """``error`` as the user is told it: with the way out, and what is kept."""
        way_out = "lower the learning rate, or set nonfinite to skip"
        return AutoReIDError(f"{error.what}: {way_out}; {self._good}{error.images}")

    def _save(self, position: dict[str, Any], best: bool = False) -> None:
        epoch = len(self.history)
        models = (part for part in self._parts.values() if isinstance(part, nn.Module))
        weights = [parameter.detach() for model in models for parameter in model.parameters()]
        norm = float(nn.utils.get_total_norm(weights))
        if not math.isfinite(norm):  # the next step's loss would say so, after the last good one is gone
            raise self.explain(NotFiniteError(f"the norm of the weights is {norm} after epoch {epoch}"))
        state = {name: part.state_dict() for name, part in self._parts.items()} | position
        on_main(partial(self._run.save, epoch, self.history, state, best))
        where = position_of({"epoch": epoch, **position})
        self._good = f"the last good checkpoint is {self._run.checkpoint}, after {where}"
        self._saved = time.perf_counter()

    def _end(self, where: str) -> None:
        logger.info("stopped after %s, which %s holds", where, self._run.checkpoint)
        raise InterruptedRun(self._stop.signal or signal.SIGTERM)
