"""Standard streams that are closed, on a full disk, or of a terminal that went away: runs go on."""

import errno
import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autoreid_fast import progress, streams
from autoreid_fast.cli import main
from autoreid_fast.commands.options import show_result
from autoreid_fast.progress import epoch_progress, log_to_console, progress_bar
from autoreid_fast.stopping import hangups_ignored


class Broken(io.StringIO):
    """A stream whose device is gone."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def write(self, text: str) -> int:
        raise self._error

    def flush(self) -> None:
        raise self._error


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


BROKEN: dict[str, Callable[[], Any]] = {
    "full disk": lambda: Broken(OSError(errno.ENOSPC, "No space left on device")),
    "terminal gone": lambda: Broken(OSError(errno.EIO, "Input/output error")),
    "pipe without reader": lambda: Broken(BrokenPipeError(errno.EPIPE, "Broken pipe")),
    "closed": closed,
    "closed before the start": lambda: None,
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("terminal", [False, True])
def test_logs_and_progress_go_on(kind: str, terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    monkeypatch.setattr(progress.console, "_force_terminal", terminal)
    log_to_console()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", BROKEN[kind]())
        with epoch_progress("train", 0, 2, 8) as show, progress_bar("decoding") as show_done:
            for step in (1, 2, 3):
                show(step, 3, torch.tensor(0.5))
                show_done(step, 3)
                logging.getLogger("autoreid_fast").warning("a line")


@pytest.mark.parametrize(
    ("kind", "status"), [("full disk", 2), ("terminal gone", 2), ("pipe without reader", 0), ("closed", 0)]
)
def test_a_result_that_is_not_printed_is_an_error(
    kind: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", BROKEN[kind]())
        assert main(["costs", "resnet18"]) == status
        assert main(["--version"]) == status
        show_result("results that are in the run's folder, too")
    errors = capsys.readouterr().err
    assert errors.count("autoreid-fast: standard output: cannot be written (") == (2 if status else 0)
    assert "Traceback" not in errors


def test_the_exit_status_is_that_of_the_command() -> None:
    """Python's own flush at the end would make it 120."""
    program = (
        "import sys; from autoreid_fast.streams import print_out, settle, standard_error\n"
        "standard_error.write('a line')\n"
        "try: print_out('a result')\n"
        "except ValueError: sys.exit(2)\n"
        "finally: settle()\n"
    )
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run([sys.executable, "-c", program], stdout=full, stderr=full)
    assert ended.returncode == 2


def test_a_lost_terminal_does_not_end_a_run() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with hangups_ignored():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is before


def test_nothing_is_discarded_while_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    streams.print_out("one\n")
    streams.settle()
    streams.print_out("two\n")
    assert capsys.readouterr().out == "one\ntwo\n"


@pytest.mark.parametrize(("encoding", "shown"), [("utf-8", "é \\udce9"), ("ascii", "\\xe9 \\udce9")])
def test_characters_that_cannot_be_printed_are_escaped(
    encoding: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
        streams.print_out("é \udce9")
        assert written.getvalue().decode(encoding) == shown
