"""What a run says on the screen: log lines, and a bar where there is a terminal."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from autoreid_fast.processes import is_main

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


@contextmanager
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function of (steps done, steps in all); draws in a terminal, and in the main process alone."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not (console.is_terminal and is_main())
    ) as progress:
        task = progress.add_task(description, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def duration(seconds: float) -> str:
    """``seconds`` as people say it: 8 s, 3 min 20 s, 2 h 05 min."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, left = divmod(minutes, 60)
    return f"{left} min {rest:02d} s" if not hours else f"{hours} h {left:02d} min"
