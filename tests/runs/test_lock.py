"""The lock of a run folder: one owner at a time, named to others; a dead owner holds nothing."""

import errno
import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import write_json
from autoreid_fast.runs.folder import RunFolder, open_run
from autoreid_fast.runs.lock import LOCK, OWNER, locked
from autoreid_fast.schema import Config


class SomeConfig(Config):
    epochs: int = 3


def test_a_second_owner_is_refused_and_the_first_is_named(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with open_run(tmp_path, SomeConfig(), "train"):
        for work in (
            lambda: run.start(SomeConfig(), "train"),
            lambda: run.session().__enter__(),
            lambda: open_run(tmp_path, SomeConfig(), "train").__enter__(),
        ):
            with pytest.raises(AutoReIDError) as error:
                work()
            owner = f"in use by process {os.getpid()} on {socket.gethostname()} since 20"
            assert str(error.value).startswith(f"{tmp_path}: {owner}")
    with open_run(tmp_path, SomeConfig(), "train"):
        pass
    assert not (tmp_path / OWNER).exists()


def test_a_killed_owner_holds_nothing(tmp_path: Path) -> None:
    program = f"""
import fcntl, time
lock = open({str(tmp_path / LOCK)!r}, "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(60)
"""
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None and owner.stdout.readline() == "locked\n"
    write_json(tmp_path / OWNER, {"host": "elsewhere", "pid": owner.pid, "since": "today"})
    with (
        pytest.raises(AutoReIDError, match=f"process {owner.pid} on elsewhere since today"),
        locked(tmp_path),
    ):
        pass
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    with locked(tmp_path):
        assert str(os.getpid()) in (tmp_path / OWNER).read_text()


@pytest.mark.parametrize("content", ["", "{", '{"pid": "one"}', "[[[["])
def test_an_owner_that_cannot_be_read_is_another_process(content: str, tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / OWNER).write_text(content)
        with pytest.raises(AutoReIDError, match="in use by another process; wait"), locked(tmp_path):
            pass


def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with caplog.at_level(logging.WARNING, logger="autoreid_fast"), locked(tmp_path):
        pass
    assert "its file system has no locks" in caplog.text
