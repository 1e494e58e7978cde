"""Heartbeat: processes that wait for each other for a long time notice when one of them is gone."""

import threading
import time
from datetime import timedelta
from typing import Any

from autoreid_fast.distributed.processes import Shard, lost_process

INTERVAL = 1.0
"""Seconds between two beats of a process that waits for nobody."""
WAITING_INTERVAL = 0.01
"""Seconds between two beats, and two reads of the others' beats, at a barrier."""
SILENCE = 30.0
"""Seconds without a beat after which a process counts as lost."""


class Heartbeat:
    """Thread that writes this process's heartbeat to a torch store and reads those of the others.

    A collective cannot tell a process that decodes images for an hour from one that was stopped or whose host
    is gone; the heartbeat can.

    Args:
        store: Store of the process group (`torch.distributed.Store`).
        shard: This process among all.
    """

    def __init__(self, store: Any, shard: Shard) -> None:
        self._store = store.clone()  # a separate connection: a call that hangs blocks nobody else
        self._keys = [f"autoreid_fast/heartbeat/{process}" for process in range(shard.processes)]
        self._key = self._keys[shard.process]
        self._barriers = 0
        self._barriers_reached = [0] * shard.processes
        self._silent_seconds = [0.0] * shard.processes
        self._error: RuntimeError | None = None
        self._stopped = False
        self._waiting = threading.Event()
        self._beats_read = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def barrier(self, limit: timedelta) -> None:
        """Wait until every process has called this equally often.

        Raises:
            LostProcessError: a process shows no sign of life, or does not arrive within ``limit``.
        """
        self._barriers += 1
        self._waiting.set()
        clock, waited, without_news = _AwakeClock(), 0.0, 0.0
        with self._beats_read:
            while late := self._late_processes():
                self._check_alive(late, without_news)
                if waited > limit.total_seconds():
                    raise lost_process(f"process {late[0]} has not arrived for {waited:.0f} s")
                news = self._beats_read.wait(INTERVAL)
                lap = clock.lap()
                waited += lap
                without_news = 0.0 if news else without_news + lap
        self._waiting.clear()

    def stop(self) -> None:
        """Stop the thread at the end of the run."""
        self._stopped = True
        self._waiting.set()
        self._thread.join()

    def _late_processes(self) -> list[int]:
        return [process for process, reached in enumerate(self._barriers_reached) if reached < self._barriers]

    def _check_alive(self, late: list[int], without_news: float) -> None:
        if self._error is not None:
            raise lost_process(self._error)
        for process in late:
            if self._silent_seconds[process] > SILENCE:
                raise lost_process(f"process {process} has shown no sign of life for {SILENCE:.0f} s")
        if without_news > SILENCE:
            raise lost_process(f"the store that the processes share has not answered for {SILENCE:.0f} s")

    def _run(self) -> None:
        previous: list[bytes] = [b""] * len(self._keys)
        clock, beat = _AwakeClock(), 0
        while not self._stopped:
            beat += 1
            try:
                self._store.set(self._key, f"{beat} {self._barriers}")
                beats = self._store.multi_get(self._keys)
            except RuntimeError as error:
                self._error = error
                beats = previous
            self._note(beats, previous, clock.lap())
            if self._error is not None:
                return
            previous = beats
            time.sleep(WAITING_INTERVAL)
            self._waiting.wait(INTERVAL - WAITING_INTERVAL)

    def _note(self, beats: list[bytes], previous: list[bytes], lap: float) -> None:
        """Note which processes have beaten since ``previous``, ``lap`` seconds ago, and wake the barrier."""
        with self._beats_read:
            for process, beat in enumerate(beats):
                silent = beat == previous[process]
                self._silent_seconds[process] = self._silent_seconds[process] + lap if silent else 0.0
                self._barriers_reached[process] = int(beat.split()[1]) if beat else 0
            self._beats_read.notify()


class _AwakeClock:
    """Clock that does not count the time for which the whole run was suspended."""

    def __init__(self) -> None:
        self._before = time.monotonic()

    def lap(self) -> float:
        """Seconds since the last call, at most two intervals."""
        before, self._before = self._before, time.monotonic()
        return min(self._before - before, 2 * INTERVAL)
