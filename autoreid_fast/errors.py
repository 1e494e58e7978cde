"""The exception for input that the user can correct."""


class AutoReIDError(ValueError):
    """Invalid input: a file, field, shape or label that the user can correct.

    The message is one line: what was wrong, what was expected, what to do. The command line prints it
    without a traceback and exits with status 2.
    """

    def __str__(self) -> str:
        """Return the message with unprintable characters escaped, such as newlines in file names."""
        message = super().__str__()
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
