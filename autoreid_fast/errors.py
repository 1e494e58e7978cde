"""The exception for input that the user can correct; describing errors of users' code."""

import traceback


class AutoReIDError(ValueError):
    """Invalid input: a file, field, shape or label that the user can correct.

    The message is one line: what was wrong, what was expected, what to do. The command line prints it
    without a traceback and exits with status 2.
    """

    def __str__(self) -> str:
        """Return the message with unprintable characters escaped, such as newlines in file names."""
        message = super().__str__()
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)


def describe_error(error: BaseException, file: str | None = None) -> str:
    """Describe an exception in one line: its type, its message, and its line in ``file`` if one is given."""
    message = next(iter(str(error).splitlines()), "")
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    place = f" in {file}, line {lines[-1]}" if lines else ""
    return f"{type(error).__name__}{': ' if message else ''}{message}{place}"
