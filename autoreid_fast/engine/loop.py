"""The epoch loop that search and training share: resume, run, log, save."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, Protocol

from autoreid_fast.engine.checkpoint import misfit, restore_random_state
from autoreid_fast.engine.distributed import on_main
from autoreid_fast.engine.progress import duration, memory_used, speed
from autoreid_fast.engine.run_folder import RunFolder
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import write_json
from autoreid_fast.processes import is_main

logger = logging.getLogger("autoreid_fast")

EpochRecord = dict[str, Any]
Observe = Callable[[Any, EpochRecord], None]
"""Called after each epoch with TensorBoard's writer and the epoch's record in the history."""


class Stateful(Protocol):
    """Anything whose state a checkpoint holds: modules and optimisers."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


def run_epochs(
    run: RunFolder,
    epochs: int,
    parts: Mapping[str, Stateful],
    one_epoch: Callable[[int], EpochRecord],
    observe: Observe | None = None,
) -> list[EpochRecord]:
    """Run the epochs that are still to do and return the history of all of them.

    ``one_epoch(epoch)`` must depend on nothing but the epoch, torch's random state and ``parts``: then a
    run that was killed and resumed ends exactly as one that was left alone. Numbers in its record go to
    TensorBoard; ``line``, where given, is what the log shows, and ``images`` how many it worked on.
    ``observe`` may add to TensorBoard what is no number. Several processes must have equal parts, random
    states and records: all go on from the main one's checkpoint, which alone writes files.

    Raises:
        AutoReIDError: a loss is no longer finite, or the checkpoint is not of this run.
    """
    from torch.utils.tensorboard import SummaryWriter  # slow to import, and only a run needs it

    history: list[EpochRecord] = []
    state = on_main(run.load)
    if state is not None:
        for name, part in parts.items():
            try:
                part.load_state_dict(state[name])
            except (KeyError, RuntimeError, ValueError) as error:
                raise AutoReIDError(
                    f"{run.checkpoint}: not of this run's {name} ({misfit(error)}); put back the checkpoint "
                    "that belongs to config.yaml, or start another run"
                ) from None
        restore_random_state(state)
        history = state["history"]
        # the run may have been killed between the checkpoint and this
        on_main(lambda: write_json(run.history, history))
        logger.info("resuming after epoch %d of %d", state["epoch"], epochs)
    with SummaryWriter(str(run.events), purge_step=len(history)) if is_main() else nullcontext() as writer:
        for epoch in range(len(history), epochs):
            begin = time.perf_counter()
            record = one_epoch(epoch)
            line, images = record.pop("line", ""), record.pop("images", 0)
            seconds = time.perf_counter() - begin
            for name, value in record.items():
                if isinstance(value, float):
                    if not math.isfinite(value):
                        raise AutoReIDError(
                            f"{name} is {value} in epoch {epoch + 1}: lower the learning rate; "
                            f"{run.path} still holds the state after epoch {epoch}"
                        )
                    if writer is not None:
                        writer.add_scalar(name, value, epoch)
            history.append({"epoch": epoch + 1, **record, "seconds": round(seconds, 2)})
            state = {name: part.state_dict() for name, part in parts.items()}
            on_main(partial(run.save, epoch + 1, history, state))
            if writer is not None:
                writer.add_scalar("seconds", seconds, epoch)
                writer.add_scalar("memory_GiB", memory_used(), epoch)
            if observe is not None:
                on_main(partial(observe, writer, history[-1]))
            left = duration(seconds * (epochs - epoch - 1))
            rate = f"{speed(images / seconds)}, " if images else ""
            spent = f"{duration(seconds)}, {rate}{memory_used():.1f} GiB, {left} left"
            logger.info("epoch %3d/%d  %s  %s", epoch + 1, epochs, line, spent)
    return history
