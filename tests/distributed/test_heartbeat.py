"""Heartbeat: processes wait at a barrier however long one of them works, and notice when one is gone."""

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
import torch.distributed as distributed

from autoreid_fast.distributed import heartbeat
from autoreid_fast.distributed.heartbeat import Heartbeat
from autoreid_fast.distributed.processes import LostProcessError, Shard

LONG, SHORT = timedelta(hours=1), timedelta(seconds=0.1)


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Heartbeat]]:
    """The heartbeats of two processes, in one process."""
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.02)
    store = distributed.HashStore()
    pair = [Heartbeat(store, Shard(process, 2)) for process in range(2)]
    yield pair
    for member in pair:
        member.stop()


def test_barriers_in_a_row(pair: list[Heartbeat]) -> None:
    """However late one process arrives, the other does not leave before."""
    arrivals = []

    def late() -> None:
        for _ in range(3):
            arrivals.append("late")
            pair[1].barrier(LONG)

    other = threading.Thread(target=late)
    for number in range(3):
        if number == 0:
            threading.Timer(0.2, other.start).start()
        pair[0].barrier(LONG)
        assert len(arrivals) > number
    other.join()


def test_a_process_that_lives_but_does_not_arrive(pair: list[Heartbeat]) -> None:
    with pytest.raises(LostProcessError, match=r"process 1 has not arrived for \d+ s"):
        pair[0].barrier(SHORT)


def test_a_process_without_a_sign_of_life(pair: list[Heartbeat], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "SILENCE", 0.2)
    pair[1].stop()
    with pytest.raises(LostProcessError, match="process 1 has shown no sign of life"):
        pair[0].barrier(LONG)


def test_a_store_that_is_gone(pair: list[Heartbeat], monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def set(self, key: str, value: str) -> None:
            raise RuntimeError("Connection reset by peer\nand a stack")

    monkeypatch.setattr(pair[0], "_store", Gone())
    with pytest.raises(LostProcessError, match=r"\(Connection reset by peer\)"):
        pair[0].barrier(LONG)
