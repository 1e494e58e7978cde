"""A limit on the seconds of a block."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def within(seconds: int, doing: str = "done") -> Iterator[None]:
    """Raise TimeoutError in a block that takes longer; main thread only, and not inside native code."""

    def stop(*signal_and_frame: object) -> None:
        raise TimeoutError(f"not {doing} within {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
