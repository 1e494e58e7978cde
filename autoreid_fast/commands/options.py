"""Command lines with a config: a preset or file, overridden by options, or a run to resume."""

import sys
from datetime import datetime
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from pydantic import Field, create_model

from autoreid_fast.commands.wrong_options import one_line_errors
from autoreid_fast.configs import AnyConfig, from_values, load_config, preset_names
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.registry import RegisteredConfig
from autoreid_fast.runs.folder import RunFolder
from autoreid_fast.schema import Config


def option(arguments: list[str], name: str) -> str | None:
    """Find the last value of ``--name`` before the command line is parsed: other defaults depend on it."""
    value = None
    for argument, following in zip_longest(arguments, arguments[1:]):
        if argument == f"--{name}" and following is not None:
            value = following
        elif argument.startswith(f"--{name}="):
            value = argument.partition("=")[2]
    return value


def form_of(config: Config, arguments: list[str], prefix: str = "") -> Config:
    """Return ``config`` as the form of a command line, with the classes that ``arguments`` choose.

    A form is an instance of a class with the same fields; the instance holds the defaults. If an option names
    something registered (``--data.kind folder``), the form has the options of its class. Fields that
    ``config`` has as well keep their values.

    Args:
        config: The defaults.
        arguments: The command line.
        prefix: Prefix of the config's options: ``data.``.

    Raises:
        AutoReIDError: an option names something that is not registered, or belongs to another class.
    """
    config_class: type[Config] = type(config)
    values = {name: getattr(config, name) for name in config_class.model_fields}
    fields: dict[str, Any] = {}
    if isinstance(config, RegisteredConfig):
        name = option(arguments, f"{prefix}{config.key}") or values[config.key]
        try:
            config_class = config.class_of(name)
        except AutoReIDError as error:
            raise AutoReIDError(f"--{prefix}{config.key}: {error}") from None
        _refuse_options_of_others(config, config_class, name, arguments, prefix)
        values = {field: value for field, value in values.items() if field in config_class.model_fields}
        values[config.key] = name
        fields[config.key] = (Literal[config.registry.names()], _described(config_class, config.key))
    for field, value in values.items():
        if isinstance(value, Config):
            values[field] = form_of(value, arguments, f"{prefix}{field}.")
            if type(values[field]) is not type(value):
                fields[field] = (type(values[field]), _described(config_class, field))
    if not fields:
        return config
    form: type[Config] = create_model(
        config_class.__name__, __base__=config_class, __doc__=config_class.__doc__, **fields
    )
    required = (field for field, info in form.model_fields.items() if info.is_required())
    return form.model_construct(**{**dict.fromkeys(required, tyro.MISSING), **values})


def _described(config_class: type[Config], field: str) -> Any:
    return Field(description=config_class.model_fields[field].description)


def _refuse_options_of_others(
    config: RegisteredConfig, chosen: type[Config], name: str, arguments: list[str], prefix: str
) -> None:
    fields = config.known_fields()
    for argument in arguments:
        option_name = argument.partition("=")[0]
        field = option_name.removeprefix(f"--{prefix}").partition(".")[0].replace("-", "_")
        if option_name.startswith(f"--{prefix}") and field in fields and field not in chosen.model_fields:
            raise AutoReIDError(f"{option_name}: not an option of --{prefix}{config.key} {name}")


def start_or_resume(
    command: str, config_class: type[AnyConfig], arguments: list[str]
) -> tuple[AnyConfig, RunFolder]:
    """Parse the command line of ``command`` and open its run folder.

    Raises:
        AutoReIDError: an option is wrong, or the preset, file or run folder cannot be used.
    """
    source = option(arguments, "config")
    base = load_config(config_class, source, command) if source else config_class()
    form = form_of(base, arguments)
    presets = ", ".join(preset_names(command))
    fields: dict[str, Any] = {
        "config": (
            str | None,
            Field(source, description=f"Preset or YAML file that sets the fields. Presets: {presets}."),
        ),
        "run": (Path | None, Field(None, description=f"Run folder; default: runs/{command}-<date>-<time>.")),
        "resume": (
            bool,
            Field(False, description="Resume the run in --run where it stopped, with its own config."),
        ),
        "fields": (Annotated[type(form), tyro.conf.arg(name="")], form),
    }
    parsed: Any = parse(create_model("Options", __doc__=config_class.__doc__, **fields), command, arguments)
    if parsed.resume:
        given = {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}
        if given != {"--run", "--resume"}:
            raise AutoReIDError(
                "--resume: expected no other option than --run; a run resumes with its own config"
            )
        run = RunFolder(parsed.run)
        return from_values(config_class, run.recorded(command), str(run.config)), run
    run = RunFolder(parsed.run or Path("runs") / f"{command}-{datetime.now():%Y%m%d-%H%M%S}")
    config = from_values(config_class, parsed.fields.model_dump(), command)
    run.start(config, command)
    return config, run


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
        form: the class or function.
        command: name of the command, for messages.
        arguments: the command line after the name.
        default: instance of a class ``form`` with default values.

    Raises:
        AutoReIDError: an option is unknown, or a value is missing or not allowed.
    """

    def read(words: list[str]) -> Any:
        return tyro.cli(
            form,
            args=words,
            prog=f"autoreid-fast {command}",
            default=default,
            config=(tyro.conf.FlagCreatePairsOff,),
        )

    with one_line_errors(command, arguments, lambda: read(["--help"])):
        return read(arguments)


def show(text: str) -> None:
    """Print a result on standard output; logs and progress bars go to standard error."""
    sys.stdout.write(text.rstrip("\n") + "\n")
    sys.stdout.flush()
