"""TensorBoard's events are extras: whatever the disk does, the run goes on, with one warning."""

import errno
import logging
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from autoreid_fast.runs.events import open_events


def write_all(folder: Path) -> None:
    """Events of three epochs of a run."""
    with open_events(folder) as events:
        for epoch in range(3):
            for name in ("loss", "mAP"):
                events.write(lambda writer, name=name, epoch=epoch: writer.add_scalar(name, 0.5, epoch))
            events.write(lambda writer: writer.flush())


@pytest.mark.parametrize("method", ["write", "flush", "close"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_failing_disk(
    method: str,
    number: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError(number, "the disk fails")

    monkeypatch.setattr(RecordWriter, method, fail)
    with caplog.at_level(logging.WARNING, logger="autoreid_fast"):
        write_all(tmp_path)
    warnings = [line for line in caplog.messages if "the disk fails" in line and "goes on without" in line]
    assert len(warnings) == (0 if method == "close" else 1)
    assert "Traceback" not in capfd.readouterr().err


def test_no_folder_for_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "events").write_text("a file")
    with caplog.at_level(logging.WARNING, logger="autoreid_fast"):
        write_all(tmp_path / "events")
    assert [line.startswith("TensorBoard's events cannot be written") for line in caplog.messages] == [True]


def test_a_good_disk(tmp_path: Path) -> None:
    write_all(tmp_path)
    scalars = EventAccumulator(str(tmp_path)).Reload()
    assert [len(scalars.Scalars(name)) for name in ("loss", "mAP")] == [3, 3]
