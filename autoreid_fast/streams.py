"""Standard output and error, which may be closed, on a full disk, or a terminal that went away; log lines."""

import io
import logging
import os
import sys
from contextlib import suppress
from typing import TextIO, cast

from autoreid_fast.errors import printable
from autoreid_fast.files import cannot_write


class _StandardError(io.TextIOBase):
    """The present ``sys.stderr`` without its errors: a run goes on, and its log file has every line."""

    @property
    def _stream(self) -> TextIO | None:
        return getattr(sys.stderr, "rich_proxied_file", sys.stderr)  # the stream below rich's progress bars

    def write(self, text: str) -> int:
        if self._stream is not None:
            with suppress(OSError, ValueError):  # ValueError: it was closed
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            with suppress(OSError, ValueError):
                self._stream.flush()

    def isatty(self) -> bool:
        with suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def fileno(self) -> int:
        if self._stream is None:
            raise io.UnsupportedOperation("standard error is closed")
        return self._stream.fileno()


standard_error = cast(TextIO, _StandardError())


class LineFormatter(logging.Formatter):
    """One line per record: names in it cannot add lines or drive the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)


def print_out(text: str) -> None:
    """Print ``text`` on standard output; characters that its encoding lacks are escaped.

    Nothing is printed if it is closed, or its reader has ended.

    Raises:
        AutoReIDError: it cannot be written, for instance to a full disk.
    """
    if sys.stdout is None or sys.stdout.closed:
        return
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the pipe, for instance `head`, has ended
        discard(sys.stdout)
    except OSError as error:
        discard(sys.stdout)
        raise cannot_write("standard output", error) from None


def discard(stream: TextIO) -> None:
    """Send what is printed from now on nowhere, or Python's flush at the end fails with exit status 120."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def settle() -> None:
    """Flush both streams at the end of the program; drop what cannot be written."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            discard(stream)
