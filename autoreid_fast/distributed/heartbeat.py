"""Signs of life: where the processes of a run wait for each other for long, they see who is gone."""

import threading
import time
from datetime import timedelta
from typing import Any

from autoreid_fast.distributed.processes import Share, lost

BEAT = 1.0
"""Seconds between two signs of life of a process that does not wait for others."""
SOON = 0.01
"""Seconds between two looks of one that does."""
SILENCE = 30.0
"""Seconds without a sign of life, after which a process is lost."""


class Pulse:
    """A thread that leaves signs of this process's life in a torch ``store``, and looks for the others'.

    A collective cannot tell a process that decodes images for an hour from one that was stopped, or whose
    host is gone. Here the first still beats.
    """

    def __init__(self, store: Any, own: Share) -> None:
        self._store = store.clone()  # a connection of its own: nobody else waits for a call that hangs
        self._keys = [f"autoreid_fast/pulse/{process}" for process in range(own.processes)]
        self._own = own.process
        self._met = 0
        self._reached = [0] * own.processes
        self._silent = [0.0] * own.processes
        self._error: RuntimeError | None = None
        self._ended = False
        self._waiting = threading.Event()
        self._looked = threading.Condition()
        self._thread = threading.Thread(target=self._live, name="pulse", daemon=True)
        self._thread.start()

    def meet(self, limit: timedelta) -> None:
        """Wait until every process has called this, each as often as this one.

        Raises:
            LostProcessError: one of them shows no sign of life, or has not come within ``limit``.
        """
        self._met += 1
        self._waiting.set()
        watch, waited, unseen = _Watch(), 0.0, 0.0
        with self._looked:
            while late := [process for process, met in enumerate(self._reached) if met < self._met]:
                self._require_life(late, unseen)
                if waited > limit.total_seconds():
                    raise lost(f"process {late[0]} has not come for {waited:.0f} s")
                looked = self._looked.wait(BEAT)
                lap = watch.lap()
                waited, unseen = waited + lap, 0.0 if looked else unseen + lap
        self._waiting.clear()

    def end(self) -> None:
        """Beat no more: the run is over, for all processes."""
        self._ended = True
        self._waiting.set()
        self._thread.join()

    def _require_life(self, late: list[int], unseen: float) -> None:
        if self._error is not None:
            raise lost(self._error)
        for process in late:
            if self._silent[process] > SILENCE:
                raise lost(f"process {process} has shown no sign of life for {SILENCE:.0f} s")
        if unseen > SILENCE:
            raise lost(f"the store that the processes share has not answered for {SILENCE:.0f} s")

    def _live(self) -> None:
        before: list[bytes] = [b""] * len(self._keys)
        watch, beats = _Watch(), 0
        while not self._ended:
            beats += 1
            try:
                self._store.set(self._keys[self._own], f"{beats} {self._met}")
                signs = self._store.multi_get(self._keys)
            except RuntimeError as error:
                self._error = error
                signs = before
            lap = watch.lap()
            with self._looked:
                for process, sign in enumerate(signs):
                    self._silent[process] = self._silent[process] + lap if sign == before[process] else 0.0
                    self._reached[process] = int(sign.split()[1]) if sign else 0
                self._looked.notify()
            if self._error is not None:
                return
            before = signs
            time.sleep(SOON)
            self._waiting.wait(BEAT - SOON)


class _Watch:
    """Seconds awake: a lap is two beats at most, for a run that was suspended as a whole has lost nobody."""

    def __init__(self) -> None:
        self._before = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last one."""
        before, self._before = self._before, time.monotonic()
        return min(self._before - before, 2 * BEAT)
