"""One line for each way in which a command line can be wrong."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from typing import Any

from pydantic import ValidationError

# tyro documents the hook, but in a private module: pyproject.toml pins the minor version
from tyro._errors import (
    BadValue,
    InstantiationFailure,
    InvalidChoice,
    MissingArgs,
    ParseErrorEvent,
    UnrecognizedArgs,
    on_parse_error,
)

from autoreid_fast.errors import AutoReIDError, did_you_mean
from autoreid_fast.schema import wrong_fields


@contextmanager
def one_line_errors(command: str, arguments: list[str], show_help: Callable[[], object]) -> Iterator[None]:
    """Raise AutoReIDError where tyro would print a box and exit.

    Args:
        command: What the message begins with.
        arguments: The command line that is parsed in the block.
        show_help: Prints the help, which lists the options to suggest, and raises SystemExit.
    """

    def refuse(event: ParseErrorEvent) -> None:
        message = _message(event, arguments, show_help)
        if message is not None:
            raise AutoReIDError(f"{command}: {message}") from None

    try:
        with on_parse_error(refuse):
            yield
    except (ValidationError, AutoReIDError) as error:
        cause = error if isinstance(error, ValidationError) else error.__context__
        if not isinstance(cause, ValidationError):
            raise
        raise AutoReIDError(f"{command}: {_wrong_values(cause, arguments)}") from None


def _message(event: ParseErrorEvent, arguments: list[str], show_help: Callable[[], object]) -> str | None:
    match event:
        case UnrecognizedArgs():
            return _unknown(event.tokens, show_help)
        case MissingArgs():
            missing = [
                f"{_name(context.arg)} ({_expected(context.arg)})" for context in event.missing_arguments
            ]
            return f"missing {', '.join(missing)}: see {event.prog} --help"
        case InvalidChoice():
            expected = ", ".join(event.choices)
            return f"{_name(event.argument)}: expected one of {expected}, got {event.value!r}"
        case BadValue() | InstantiationFailure() if event.argument is not None:
            expected = _expected(event.argument)
            values = " ".join(_values(arguments, _name(event.argument)))
            return (
                f"{_name(event.argument)}: expected {expected}, got {repr(values) if values else 'nothing'}"
            )
    error = _validation_error()
    return _wrong_values(error, arguments) if error else None


def _wrong_values(error: ValidationError, arguments: list[str]) -> str:
    """Describe an error of a section, whose fields pydantic names without the section's prefix."""
    given = {argument.partition("=")[0].replace("_", "-") for argument in arguments}

    def option_of(field: str) -> str:
        ending = field.partition(".")[0].replace("_", "-")
        options = [option for option in sorted(given) if option.lstrip("-").split(".")[-1] == ending]
        return options[0] if options else field

    return wrong_fields(error, name=option_of)


def _unknown(tokens: list[str], show_help: Callable[[], object]) -> str:
    options = [token.partition("=")[0] for token in tokens if token.startswith("--")]
    if not options:
        return f"unexpected argument {tokens[0]!r}"
    with redirect_stdout(StringIO()) as page, suppress(SystemExit):
        show_help()
    known = list(dict.fromkeys(re.findall(r"--[\w.-]+", page.getvalue())))
    section = options[0].rpartition(".")[0]
    siblings = [option for option in known if section and option.startswith(f"{section}.")]
    hint = did_you_mean(options[0], known)
    if not hint:
        hint = f"expected one of {', '.join(siblings)}" if siblings else "--help lists the options"
    return f"unknown option {options[0]}, {hint}"


def _name(argument: Any) -> str:
    """Name of an option, or of an argument without one in capitals."""
    return argument.display_name().upper() if argument.is_positional() else argument.lowered.name_or_flags[0]


def _expected(argument: Any) -> str:
    """The placeholder of the values: ``INT``; without what stands for "not given"."""
    return str(argument.lowered.metavar).replace("{None}|", "")


def _values(arguments: list[str], option: str) -> list[str]:
    """The values of ``option`` on the command line."""
    values: list[str] = []
    reading = False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if argument.startswith("--"):
            reading = name.replace("_", "-") == option.replace("_", "-")
            values += [value] if reading and equals else []
        elif reading:
            values.append(argument)
    return values


def _validation_error() -> ValidationError | None:
    """The pydantic error behind the exception that is being handled."""
    error: BaseException | None = sys.exc_info()[1]
    while error is not None and not isinstance(error, ValidationError):
        error = error.__cause__ or error.__context__
    return error
