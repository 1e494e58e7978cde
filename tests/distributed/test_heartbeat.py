"""Signs of life: processes meet however long one of them works, and know who is gone."""

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
import torch.distributed as distributed

from autoreid_fast.distributed import heartbeat as pulse
from autoreid_fast.distributed.heartbeat import Pulse
from autoreid_fast.distributed.processes import LostProcessError, Share

LONG, SHORT = timedelta(hours=1), timedelta(seconds=0.1)


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Pulse]]:
    """The pulses of two processes, in one."""
    monkeypatch.setattr(pulse, "BEAT", 0.02)
    store = distributed.HashStore()
    pair = [Pulse(store, Share(process, 2)) for process in range(2)]
    yield pair
    for each in pair:
        each.end()


def test_they_meet_and_meet_again(pair: list[Pulse]) -> None:
    """However late one comes, and none leaves before."""
    order = []

    def late() -> None:
        for _ in range(3):
            order.append("late")
            pair[1].meet(LONG)

    other = threading.Thread(target=late)
    for meeting in range(3):
        if meeting == 0:
            threading.Timer(0.2, other.start).start()
        pair[0].meet(LONG)
        assert order.count("late") > meeting
    other.join()


def test_one_that_lives_but_does_not_come(pair: list[Pulse]) -> None:
    with pytest.raises(LostProcessError, match=r"process 1 has not come for \d+ s"):
        pair[0].meet(SHORT)


def test_one_that_shows_no_sign_of_life(pair: list[Pulse], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "SILENCE", 0.2)
    pair[1].end()
    with pytest.raises(LostProcessError, match="process 1 has shown no sign of life"):
        pair[0].meet(LONG)


def test_a_store_that_is_gone(pair: list[Pulse], monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def set(self, key: str, value: str) -> None:
            raise RuntimeError("Connection reset by peer\nand a stack")

    monkeypatch.setattr(pair[0], "_store", Gone())
    with pytest.raises(LostProcessError, match=r"\(Connection reset by peer\)"):
        pair[0].meet(LONG)
