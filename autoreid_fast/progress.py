"""What a run says on the screen: log lines, and a bar where there is a terminal."""

import logging
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from autoreid_fast.distributed.processes import is_main

LOOK_EVERY = 0.5  # seconds between two looks at the loss, each of which waits for the GPU
LINE_EVERY = 60.0  # seconds between two lines where there is no terminal

console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


class _ConsoleHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if not is_main():
            return
        console.print(self.format(record))


def log_to_console() -> None:
    """Show the main process's log lines on standard error, once however often it is called."""
    logger = logging.getLogger("autoreid_fast")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _ConsoleHandler) for handler in logger.handlers):
        logger.addHandler(_ConsoleHandler())


def _words(field: str) -> TextColumn:
    """A field of a bar's task as it stands: names of folders are other people's text, not rich's markup."""
    return TextColumn(f"{{task.{field}}}", markup=False)


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function of (steps done, steps in all), of which the main process tells.

    In a terminal that moves a bar; elsewhere what is long says a line a minute.
    """
    columns = (_words("description"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    terminal = console.is_terminal
    looked = time.perf_counter()
    with Progress(
        *columns, console=console, transient=True, disable=not (terminal and is_main())
    ) as progress:
        task = progress.add_task(description, total=None)

        def show(done: int, total: int) -> None:
            nonlocal looked
            progress.update(task, completed=done, total=total)
            if not terminal and is_main() and done < total and time.perf_counter() - looked >= LINE_EVERY:
                looked = time.perf_counter()
                console.print(f"{description}: {done:,} of {total:,}")

        yield show


@contextmanager
def epoch_progress(
    what: str, epoch: int, epochs: int, batch_images: int
) -> Iterator[Callable[[int, int, torch.Tensor], None]]:
    """Show how ``epoch`` (from 0) of ``epochs`` gets on: loss, images a second, memory, time left of the run.

    Yields a function of (steps done, steps in all, the loss of this step as a tensor of one element). On a
    terminal that moves a bar; elsewhere a long epoch says a line a minute. ``batch_images``: images a step.
    """
    begin = time.perf_counter()
    terminal = console.is_terminal
    interval = LOOK_EVERY if terminal else LINE_EVERY
    looked = begin
    before: int | None = None  # steps done by the time that this began
    title = f"{what} epoch {epoch + 1}/{epochs}"
    columns = (
        _words("description"),
        BarColumn(),
        MofNCompleteColumn(),
        _words("fields[note]"),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not (terminal and is_main())
    ) as progress:
        task = progress.add_task(title, total=None, note="")

        def show(step: int, steps: int, loss: torch.Tensor) -> None:
            nonlocal looked, before
            before = step - 1 if before is None else before
            now = time.perf_counter()
            if now - looked < interval:
                progress.update(task, completed=step, total=steps)
                return
            looked = now
            a_step = (now - begin) / (step - before)
            left = duration(a_step * (steps * (epochs - epoch) - step))
            rate = speed(batch_images / a_step)
            note = f"loss {float(loss):.3f}  {rate}  {memory_used():.1f} GiB  {left} left"
            progress.update(task, completed=step, total=steps, note=note)
            if not terminal and is_main():
                console.print(f"{title}, step {step}/{steps}  {note}")

        yield show


def memory_used() -> float:
    """The most memory in use so far, in GiB: by tensors on the GPU, without one by the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB


def speed(images_a_second: float) -> str:
    """As people say it: 0.3 images/s, 410 images/s."""
    return f"{images_a_second:.{0 if images_a_second >= 10 else 1}f} images/s"


def duration(seconds: float) -> str:
    """``seconds`` as people say it: 8 s, 3 min 20 s, 2 h 05 min."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, left = divmod(minutes, 60)
    return f"{left} min {rest:02d} s" if not hours else f"{hours} h {left:02d} min"
