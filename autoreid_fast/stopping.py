"""SIGINT and SIGTERM: the first one lets a run finish its step and save, the second one ends it at once.

SIGHUP, which a terminal sends when it goes away, does not end a run.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptedRun(KeyboardInterrupt):
    """A signal ended the work in progress.

    Attributes:
        number: Number of the signal.
        status: Exit status of a process that the signal ended: 128 + ``number``.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(f"{signal.Signals(number).name}")
        self.number = number
        self.status = 128 + number


class StopRequest:
    """Request of a signal to stop.

    Attributes:
        signal: Number of the signal; None until one arrives.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def set(self, number: int) -> None:
        """Note that a signal has arrived."""
        self.signal = number


@contextmanager
def _first_signal_calls(function: Callable[[int], None]) -> Iterator[None]:
    """Call ``function`` at the first signal inside the block; the second one kills the process at once.

    Only the main thread can handle signals; in another one this has no effect.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        for stop_signal in SIGNALS:
            signal.signal(stop_signal, signal.SIG_DFL)
        function(number)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Make a signal raise `InterruptedRun` inside the block, so that unfinished files are removed."""

    def interrupt(number: int) -> None:
        raise InterruptedRun(number)

    with _first_signal_calls(interrupt):
        yield


@contextmanager
def hangups_ignored() -> Iterator[None]:
    """Go on inside the block when the terminal goes away (SIGHUP), as under nohup."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before or signal.SIG_DFL)


@contextmanager
def signals_wait() -> Iterator[StopRequest]:
    """Make a signal inside the block only set the `StopRequest` that this yields."""
    request = StopRequest()
    with _first_signal_calls(request.set):
        yield request
