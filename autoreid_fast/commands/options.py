"""Command lines with a config: a preset or file, overridden by options, or a run to resume."""

import logging
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field, create_model

from autoreid_fast.commands.forms import form_of, option
from autoreid_fast.commands.wrong_options import one_line_errors
from autoreid_fast.configs import AnyConfig, from_values, load_config, preset_names
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.streams import print_out

logger = logging.getLogger("autoreid_fast")


def start_or_resume(
    command: str, config_class: type[AnyConfig], arguments: list[str]
) -> tuple[AnyConfig, RunFolder]:
    """Parse the command line of ``command`` and open its run folder.

    Raises:
        AutoReIDError: an option is wrong, or the preset, file or run folder cannot be used.
    """
    if sum(argument.partition("=")[0] == "--config" for argument in arguments) > 1:
        raise AutoReIDError(f"{command}: --config is given twice, and configs do not add up; give one")
    source = option(arguments, "config")
    base = load_config(config_class, source, command) if source else config_class()
    form = form_of(base, arguments)
    fields: dict[str, Any] = {
        "config": (str | None, Field(source, description=_about_presets(command))),
        "run": (Path | None, Field(None, description=f"Run folder; default: runs/{command}-<date>-<time>.")),
        "resume": (bool, Field(False, description="Resume the run in --run with its own config.")),
        "fields": (Annotated[type(form), tyro.conf.arg(name="")], form),
    }
    options = parse(create_model("Options", __doc__=config_class.__doc__, **fields), command, arguments)
    if options.resume:
        return _resume(command, config_class, options.run, arguments)
    run = RunFolder(options.run or Path("runs") / f"{command}-{datetime.now():%Y%m%d-%H%M%S}")
    config = from_values(config_class, options.fields.model_dump(), command)
    run.start(config, command)
    return config, run


def _about_presets(command: str) -> str:
    return f"Preset or YAML file that sets the fields. Presets: {', '.join(preset_names(command))}."


def _resume(
    command: str, config_class: type[AnyConfig], folder: Path, arguments: list[str]
) -> tuple[AnyConfig, RunFolder]:
    given = {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}
    if given != {"--run", "--resume"}:
        raise AutoReIDError("--resume: expected --run and no other option; a run resumes with its own config")
    run = RunFolder(folder)
    return from_values(config_class, run.recorded(command), str(run.config)), run


def parse_config(defaults: AnyConfig, command: str, arguments: list[str]) -> AnyConfig:
    """Parse ``arguments`` into a config of the class of ``defaults``.

    Raises:
        AutoReIDError: an option is unknown, or a value is missing or not allowed.
    """
    form = form_of(defaults, arguments)
    parsed = parse(type(form), command, arguments, form)
    return from_values(type(defaults), parsed.model_dump(), command)


def parse(form: Any, command: str, arguments: list[str], default: Any = tyro.MISSING_NONPROP) -> Any:
    """Parse ``arguments`` with a typed form: a class, or a function whose result is returned.

    Args:
        form: The class or function.
        command: Name of the command, for errors.
        arguments: The command line after the name.
        default: Instance of the class ``form`` with the default values.

    Raises:
        AutoReIDError: an option is unknown, or a value is missing or not allowed.
    """

    def read(words: list[str]) -> Any:
        return tyro.cli(
            form,
            args=words,
            prog=f"autoreid-fast {command}",
            default=default,
        )

    with one_line_errors(command, arguments, lambda: read(["--help"])):
        return read(arguments)


def run_as_argument(arguments: list[str]) -> list[str]:
    """Move ``--run FOLDER`` to the front, for a command whose first argument is a run."""
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--run":
            end = index + (1 if equals else 2)
            given = [value] if equals else arguments[index + 1 : end]
            return [*given, *arguments[:index], *arguments[end:]]
    return arguments


def run_as_option(arguments: list[str]) -> list[str]:
    """Name a run that is the first argument: ``FOLDER`` means ``--run FOLDER``."""
    first = arguments[:1]
    return ["--run", *arguments] if first and not first[0].startswith("-") else arguments


def show(text: str) -> None:
    """Print a result on standard output; logs and progress bars go to standard error.

    Raises:
        AutoReIDError: standard output cannot be written.
    """
    print_out(text.rstrip("\n") + "\n")


def show_result(text: str) -> None:
    """Print the result of a run, which its folder holds, too: it is no error if that is not possible."""
    try:
        show(text)
    except AutoReIDError as error:
        logger.warning("%s", error)
