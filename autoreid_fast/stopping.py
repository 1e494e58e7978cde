"""SIGINT and SIGTERM: the first lets a run finish its step and save, the second ends it at once."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptedRun(KeyboardInterrupt):
    """Signal ``number`` ended what was under way; ``status`` is the exit status that says so, 128 + it."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(f"{signal.Signals(number).name}")
        self.number = number
        self.status = 128 + number


class StopRequest:
    """Whether a signal has come, and which."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def take(self, number: int) -> None:
        """Remember the signal until there is a good moment."""
        self.signal = number


@contextmanager
def _first_signal_goes_to(take: Callable[[int], None]) -> Iterator[None]:
    """Call ``take`` at the first signal while the block runs; the second kills, even in an op.

    Only the main thread can be told of signals; in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        take(number)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """While the block runs, a signal raises `InterruptedRun`, so that what is half done is cleared away."""

    def interrupt(number: int) -> None:
        raise InterruptedRun(number)

    with _first_signal_goes_to(interrupt):
        yield


@contextmanager
def signals_wait() -> Iterator[StopRequest]:
    """While the block runs, a signal is noted in what this yields, and nothing else."""
    request = StopRequest()
    with _first_signal_goes_to(request.take):
        yield request
