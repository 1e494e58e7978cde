"""The one exception that means "the input is wrong, and here is the way out"."""


class AutoReIDError(ValueError):
    """Bad input: a file, field, shape or label that the user can put right.

    The message is one line that names the culprit and the way out; the command line prints it
    without a traceback and exits with status 2.
    """

    def __str__(self) -> str:
        """The message, what cannot be printed escaped: names may hold newlines and terminal codes."""
        message = super().__str__()
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
