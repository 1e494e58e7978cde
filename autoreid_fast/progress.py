"""Progress of a run on the console: log lines, and a progress bar in a terminal."""

import logging
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from autoreid_fast.distributed.processes import is_main
from autoreid_fast.streams import LineFormatter, standard_error

REFRESH_EVERY = 0.5
"""Seconds between two updates of the loss in a terminal, each of which waits for the GPU."""
LINE_EVERY = 60.0
"""Seconds between two lines without a terminal."""

console = Console(file=standard_error, highlight=False, soft_wrap=True, markup=False, emoji=False)


class _ConsoleHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if is_main():
            console.print(self.format(record))


def log_to_console() -> None:
    """Show the log of the main process on standard error; further calls have no effect."""
    logger = logging.getLogger("autoreid_fast")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _ConsoleHandler) for handler in logger.handlers):
        handler = _ConsoleHandler()
        handler.setFormatter(LineFormatter())
        logger.addHandler(handler)


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Show the progress of a long task.

    Yields:
        A function to call with the steps done and all steps. In a terminal it moves a bar; elsewhere it
        prints one line per minute.
    """
    terminal = console.is_terminal
    last_line = time.perf_counter()
    columns = (_verbatim("description"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with _bar(columns) as progress:
        task = progress.add_task(description, total=None)

        def show(done: int, total: int) -> None:
            nonlocal last_line
            progress.update(task, completed=done, total=total)
            if not terminal and is_main() and done < total and time.perf_counter() - last_line >= LINE_EVERY:
                last_line = time.perf_counter()
                console.print(f"{description}: {done:,} of {total:,}")

        yield show


@contextmanager
def epoch_progress(
    name: str, epoch: int, epochs: int, batch_images: int
) -> Iterator[Callable[[int, int, torch.Tensor], None]]:
    """Show the progress of one epoch: loss, images per second, memory, remaining time of the run.

    Args:
        name: "search", "train".
        epoch: Number of the epoch, from 0.
        epochs: Epochs of the whole run.
        batch_images: Images per step.

    Yields:
        A function to call with the steps done, all steps, and the loss of the last step, a scalar tensor. In
        a terminal it moves a bar; elsewhere it prints one line per minute.
    """
    terminal = console.is_terminal
    interval = REFRESH_EVERY if terminal else LINE_EVERY
    start = last_shown = time.perf_counter()
    steps_before: int | None = None  # done when the epoch was begun or resumed
    title = f"{name} epoch {epoch + 1}/{epochs}"
    columns = (_verbatim("description"), BarColumn(), MofNCompleteColumn(), _verbatim("fields[note]"))
    with _bar(columns) as progress:
        task = progress.add_task(title, total=None, note="")

        def show(step: int, steps: int, loss: torch.Tensor) -> None:
            nonlocal last_shown, steps_before
            steps_before = step - 1 if steps_before is None else steps_before
            now = time.perf_counter()
            if now - last_shown < interval:
                progress.update(task, completed=step, total=steps)
                return
            last_shown = now
            seconds_per_step = (now - start) / (step - steps_before)
            remaining = duration(seconds_per_step * (steps * (epochs - epoch) - step))
            rate = speed(batch_images / seconds_per_step)
            note = f"loss {float(loss):.3f}  {rate}  {memory_used():.1f} GiB  {remaining} left"
            progress.update(task, completed=step, total=steps, note=note)
            if not terminal and is_main():
                console.print(f"{title}, step {step}/{steps}  {note}")

        yield show


def _bar(columns: tuple[ProgressColumn, ...]) -> Progress:
    """Make a bar that only the main process shows, and only in a terminal."""
    visible = console.is_terminal and is_main()
    return Progress(*columns, console=console, transient=True, disable=not visible)


def _verbatim(field: str) -> TextColumn:
    """Make a column for a field of a task, without rich's markup: a folder's name may look like some."""
    return TextColumn(f"{{task.{field}}}", markup=False)


def memory_used() -> float:
    """Peak memory in GiB: of tensors on the GPU, or of the process without a GPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


def speed(images_per_second: float) -> str:
    """Format a rate for readers: 0.3 images/s, 410 images/s."""
    return f"{images_per_second:.{0 if images_per_second >= 10 else 1}f} images/s"


def duration(seconds: float) -> str:
    """Format ``seconds`` for readers: 8 s, 3 min 20 s, 2 h 05 min."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, left = divmod(minutes, 60)
    return f"{left} min {rest:02d} s" if not hours else f"{hours} h {left:02d} min"
