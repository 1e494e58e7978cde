"""TensorBoard's files of a run: extras, whose errors never end the run."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from autoreid_fast.distributed.processes import is_main

logger = logging.getLogger("autoreid_fast")


class Events:
    """Writer of events; after the first error of the disk, which is logged, it writes nothing more.

    Args:
        writer: torch's SummaryWriter; None writes nothing.
    """

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, write: Callable[[Any], object]) -> None:
        """Call ``write`` with torch's SummaryWriter."""
        if self._writer is None:
            return
        try:
            write(self._writer)
        except OSError as error:
            _warn(error)
            self._writer = None


@contextmanager
def open_events(folder: Path, purge_step: int | None = None) -> Iterator[Events]:
    """Open TensorBoard's writer for the block, in the main process only.

    Args:
        folder: The folder of the event files.
        purge_step: Hide events from this step on that are already there.
    """
    if not is_main():
        yield Events(None)
        return
    from torch.utils.tensorboard import SummaryWriter  # slow to import

    hook = threading.excepthook
    threading.excepthook = _without_tensorboard(hook)
    writer = None
    try:
        try:
            writer = SummaryWriter(str(folder), purge_step=purge_step)
        except OSError as error:
            _warn(error)
        events = Events(writer)
        yield events
        events.write(lambda writer: writer.flush())
    finally:
        if writer is not None:
            with suppress(OSError):
                writer.close()
        threading.excepthook = hook


def _warn(error: OSError) -> None:
    logger.warning(
        "TensorBoard's events cannot be written (%s); the run goes on without", error.strerror or error
    )


def _without_tensorboard(hook: Callable[[Any], object]) -> Callable[[Any], object]:
    """Leave out the traceback of TensorBoard's thread, whose error is raised in the main thread, too."""

    def show(arguments: Any) -> None:
        if not type(arguments.thread).__module__.startswith("tensorboard."):
            hook(arguments)

    return show
