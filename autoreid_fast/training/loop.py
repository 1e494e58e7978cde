"""The epoch loop of every run: resume, train, log, save; and the step loop inside an epoch."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from autoreid_fast.distributed.collectives import mean_over_processes
from autoreid_fast.distributed.group import on_main
from autoreid_fast.progress import duration, epoch_progress, memory_used, speed
from autoreid_fast.runs.events import open_events
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.stopping import signals_wait
from autoreid_fast.training.checkpointing import Checkpointer, EpochRecord, Stateful
from autoreid_fast.training.epoch import Epoch, NotFiniteError

logger = logging.getLogger("autoreid_fast")

Observe = Callable[[Any, EpochRecord], None]
"""Called after each epoch with TensorBoard's writer and the epoch's record in the history."""


@dataclass(frozen=True)
class EpochResult:
    """Result of one epoch.

    Attributes:
        record: Values for history.json; those that are floats go to TensorBoard, too.
        summary: The epoch in a few words, for the log.
        images: Images that were processed, for the rate in the log.
    """

    record: EpochRecord
    summary: str
    images: int


class Batches(Protocol):
    """Batches of epochs; an epoch can start at any batch, without making those before it."""

    def __len__(self) -> int:
        """Batches per epoch."""

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Any, ...]]:
        """Yield the batches of ``epoch`` from number ``first`` on."""

    def names(self, epoch: int, number: int) -> Sequence[str]:
        """File names of the images in batch ``number`` of ``epoch``."""


@dataclass(frozen=True)
class StepLoop:
    """The steps of an epoch, with their progress on the console.

    Attributes:
        title: What the progress bar says: "train".
        epochs: Epochs of the whole run.
        batches: Batches of each epoch.
        batch_images: Images per step, in all processes.
        step: Called with the parts of a batch; returns the losses of the step by name. The progress bar
            shows the first.
        loss_names: Names of these losses, for checkpoints of earlier versions that hold losses without names.
    """

    title: str
    epochs: int
    batches: Batches
    batch_images: int
    step: Callable[..., Mapping[str, Tensor]]
    loss_names: tuple[str, ...]

    def run(self, epoch: Epoch) -> dict[str, float]:
        """Run the steps of ``epoch`` that are not done; return the mean of each loss over all its steps.

        Raises:
            NotFiniteError: a loss is NaN or infinite.
        """
        steps = len(self.batches)
        remaining = self.batches.epoch(epoch.number, epoch.done)
        with epoch_progress(self.title, epoch.number, self.epochs, self.batch_images) as show:
            for batch in epoch.steps(remaining, partial(self.batches.names, epoch.number)):
                losses = self.step(*batch)
                epoch.add(**losses)
                show(epoch.done + 1, steps, next(iter(losses.values())))
        means = mean_over_processes(epoch.means()).tolist()
        return dict(zip(epoch.loss_names or self.loss_names, means, strict=True))

    def images(self, epoch: Epoch) -> int:
        """Images processed in ``epoch`` since it was begun or resumed."""
        return (len(self.batches) - epoch.steps_before) * self.batch_images


def run_epochs(
    run: RunFolder,
    epochs: int,
    checkpointed: Mapping[str, Stateful],
    run_epoch: Callable[[Epoch], EpochResult],
    observe: Observe | None = None,
    best_by: str = "",
    skip_nonfinite: bool = False,
    advice: str = "lower the learning rate, or set nonfinite to skip",
) -> list[EpochRecord]:
    """Run the epochs that are not done; return the history of all of them.

    A run that was stopped at any step and resumed ends with the same bits as one that was not, provided that
    ``run_epoch`` depends only on the epoch's number, the steps done, torch's random state and
    ``checkpointed``. Several processes must have equal models, optimisers, random states and records; all
    resume from the checkpoint of the main process, the only one that writes files.

    Args:
        run: Run folder.
        epochs: Epochs of the whole run.
        checkpointed: Modules and optimisers that a checkpoint holds, by name.
        run_epoch: Runs one epoch, by way of `Epoch.steps`.
        observe: Callback that adds to TensorBoard after each epoch what is not a number.
        best_by: Name of a value in the record; the checkpoint with the highest one is kept as the best.
        skip_nonfinite: As for `Epoch`.
        advice: What to do if a loss or a weight is not finite, for the error.

    Raises:
        AutoReIDError: a loss or a weight is NaN or infinite, or the checkpoint does not fit the run.
        InterruptedRun: SIGINT or SIGTERM arrived; the step or the evaluation was finished and saved.
    """
    with signals_wait() as stop:
        checkpointer = Checkpointer(run, checkpointed, stop, advice)
        checkpointer.restore(epochs)
        history = checkpointer.history
        with open_events(run.events, len(history)) as events:
            for number in range(len(history), epochs):
                epoch = checkpointer.begin_epoch(skip_nonfinite)
                try:
                    result = run_epoch(epoch)
                    _check_finite(result.record, number)
                except NotFiniteError as error:
                    raise checkpointer.explain(error) from None
                best = _is_best(result.record, history, best_by)
                seconds = checkpointer.end_epoch(result.record, best)
                timing = {"seconds": seconds, "memory_GiB": memory_used()}
                events.write(partial(_write_scalars, number=number, record=result.record | timing))
                if observe is not None:
                    on_main(partial(events.write, lambda writer: observe(writer, history[-1])))
                _log_epoch(number, epochs, result, seconds)
                checkpointer.after_epoch()
    return history


def write_result(run: RunFolder, record: EpochRecord, observe: Observe | None = None) -> None:
    """Add to TensorBoard what was measured after the last epoch, whose number is ``record["epoch"]``."""
    with open_events(run.events) as events:
        events.write(partial(_write_scalars, number=record["epoch"] - 1, record=record))
        if observe is not None:
            events.write(lambda writer: observe(writer, record))


def _write_scalars(writer: Any, number: int, record: EpochRecord) -> None:
    for name, value in record.items():
        if isinstance(value, float):
            writer.add_scalar(name, value, number)


def _log_epoch(number: int, epochs: int, result: EpochResult, seconds: float) -> None:
    rate = f"{speed(result.images / seconds)}, " if result.images else ""
    remaining = duration(seconds * (epochs - number - 1))
    spent = f"{duration(seconds)}, {rate}{memory_used():.1f} GiB, {remaining} left"
    logger.info("epoch %3d/%d  %s  %s", number + 1, epochs, result.summary, spent)


def _is_best(record: EpochRecord, history: list[EpochRecord], name: str) -> bool:
    """Whether ``name`` is higher in ``record`` than in any earlier one; False if ``record`` lacks it."""
    return name in record and all(record[name] > other[name] for other in history if name in other)


def _check_finite(record: EpochRecord, number: int) -> None:
    for name, value in record.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise NotFiniteError(f"{name} is {value} in epoch {number + 1}")
