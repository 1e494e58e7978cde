"""The epoch loop that search and training share: resume, run, log, save."""

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

from autoreid_fast.distributed.group import on_main
from autoreid_fast.distributed.processes import is_main
from autoreid_fast.progress import duration, memory_used, speed
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.stopping import signals_wait
from autoreid_fast.training.checkpointing import EpochRecord, Keeper, Stateful
from autoreid_fast.training.epoch import Epoch, NotFiniteError

__all__ = ["EpochRecord", "Observe", "Stateful", "run_epochs", "write_result"]

logger = logging.getLogger("autoreid_fast")

Observe = Callable[[Any, EpochRecord], None]
"""Called after each epoch with TensorBoard's writer and the epoch's record in the history."""


def run_epochs(
    run: RunFolder,
    epochs: int,
    parts: Mapping[str, Stateful],
    one_epoch: Callable[[Epoch], EpochRecord],
    observe: Observe | None = None,
    best_by: str = "",
    tolerant: bool = False,
) -> list[EpochRecord]:
    """Run the epochs that are still to do and return the history of all of them.

    ``one_epoch(epoch)`` goes through ``epoch.steps`` and must depend on nothing but the epoch's number, the
    steps done, torch's random state and ``parts``: then a run that was stopped at any step and resumed ends
    exactly as one that was left alone. Numbers in its record go to TensorBoard; ``line``, where given, is
    what the log shows, and ``images`` how many it worked on. ``observe`` may add to TensorBoard what is no
    number. Beside the last checkpoint the one of the highest ``best_by``, a name in the record, is kept.
    ``tolerant``: as `Epoch` has it. Several processes must have equal parts, random states and records: all
    go on from the main one's checkpoint, which alone writes files.

    Raises:
        AutoReIDError: a loss or a weight is no longer finite, or the checkpoint is not of this run.
        InterruptedRun: SIGINT or SIGTERM came; the step, or the evaluation, was finished and saved.
    """
    from torch.utils.tensorboard import SummaryWriter  # slow to import, and only a run needs it

    with signals_wait() as stop:
        keeper = Keeper(run, parts, stop)
        keeper.restore(epochs)
        history = keeper.history
        events = SummaryWriter(str(run.events), purge_step=len(history)) if is_main() else nullcontext()
        with events as writer:
            for number in range(len(history), epochs):
                epoch = Epoch(number, keeper.after_step, tolerant, keeper.begin())
                try:
                    record = one_epoch(epoch)
                    _require_finite(record, number)
                except NotFiniteError as error:
                    raise keeper.explain(error) from None
                line, images = record.pop("line", ""), record.pop("images", 0)
                seconds = keeper.finish(record, _is_best(record, history, best_by))
                if writer is not None:
                    _write_events(writer, number, {**record, "seconds": seconds, "memory_GiB": memory_used()})
                if observe is not None:
                    on_main(partial(observe, writer, history[-1]))
                left = duration(seconds * (epochs - number - 1))
                rate = f"{speed(images / seconds)}, " if images else ""
                spent = f"{duration(seconds)}, {rate}{memory_used():.1f} GiB, {left} left"
                logger.info("epoch %3d/%d  %s  %s", number + 1, epochs, line, spent)
                keeper.after_epoch()
    return history


def write_result(run: RunFolder, record: EpochRecord, observe: Observe | None = None) -> None:
    """Add to TensorBoard what was measured after the last epoch, whose number ``record`` has."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(run.events)) as writer:
        _write_events(writer, record["epoch"] - 1, record)
        if observe is not None:
            observe(writer, record)


def _is_best(record: EpochRecord, history: list[EpochRecord], name: str) -> bool:
    """Whether ``name`` is higher in ``record`` than ever before; an epoch without it is never the best."""
    return name in record and all(record[name] > other[name] for other in history if name in other)


def _require_finite(record: EpochRecord, number: int) -> None:
    for name, value in record.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise NotFiniteError(f"{name} is {value} in epoch {number + 1}")


def _write_events(writer: Any, number: int, record: EpochRecord) -> None:
    for name, value in record.items():
        if isinstance(value, float):
            writer.add_scalar(name, value, number)
