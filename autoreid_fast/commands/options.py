"""Command lines of `search` and `train`: a preset or file, overridden field by field, or a run to resume."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field, ValidationError, create_model

from autoreid_fast.configs import AnyConfig, from_values, load_config, preset_names, wrong_fields
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.runs.folder import RunFolder


def option(arguments: list[str], name: str) -> str | None:
    """The value of ``--name`` on a command line that is not parsed yet, because it decides other defaults."""
    for index, argument in enumerate(arguments):
        if argument == f"--{name}" and index + 1 < len(arguments):
            return arguments[index + 1]
        if argument.startswith(f"--{name}="):
            return argument.partition("=")[2]
    return None


def start_or_resume(
    command: str, config_class: type[AnyConfig], arguments: list[str]
) -> tuple[AnyConfig, RunFolder]:
    """Parse the command line of ``command`` and open its run folder.

    Raises:
        AutoReIDError: the preset, the file or the run folder cannot be used.
    """
    source = option(arguments, "config")
    base = load_config(config_class, source, command) if source else config_class()
    presets = ", ".join(preset_names(command))
    fields: dict[str, Any] = {
        "config": (
            str | None,
            Field(source, description=f"Preset or YAML file that sets the fields. Presets: {presets}."),
        ),
        "run": (Path | None, Field(None, description=f"Run folder; default: runs/{command}-<date>-<time>.")),
        "resume": (
            bool,
            Field(False, description="Go on with the run in --run where it stopped, by its own config."),
        ),
        "fields": (Annotated[config_class, tyro.conf.arg(name="")], base),
    }
    form = create_model("Options", __doc__=config_class.__doc__, **fields)
    parsed: Any = parse(form, command, arguments)
    if parsed.resume:
        given = {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}
        if given != {"--run", "--resume"}:
            raise AutoReIDError("--resume takes --run alone: a run goes on by the config it was started with")
        run = RunFolder(parsed.run)
        return from_values(config_class, run.recorded(command), str(run.config)), run
    run = RunFolder(parsed.run or Path("runs") / f"{command}-{datetime.now():%Y%m%d-%H%M%S}")
    run.start(parsed.fields, command)
    return parsed.fields, run


def parse(form: Any, command: str, arguments: list[str]) -> Any:
    """Parse ``arguments`` by a typed form, a class or a function (whose result is returned).

    Raises:
        AutoReIDError: a value that its field does not allow.
    """
    try:
        return tyro.cli(
            form, args=arguments, prog=f"autoreid-fast {command}", config=(tyro.conf.FlagCreatePairsOff,)
        )
    except ValidationError as error:
        raise AutoReIDError(f"{command}: {wrong_fields(error)}") from None


def show(text: str) -> None:
    """Print a result on standard output; log lines and bars go to standard error."""
    sys.stdout.write(text.rstrip("\n") + "\n")
    sys.stdout.flush()
