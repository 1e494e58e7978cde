"""Forms of command lines: a config whose options depend on the registered names among them."""

from itertools import zip_longest
from typing import Any, Literal

import tyro
from pydantic import Field, create_model

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.registry import RegisteredConfig
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

    A form is an instance of a subclass with the same fields; the instance holds the defaults. If an option
    names something registered (``--data.kind folder``), the form has the options of its class; fields that
    were set in ``config`` keep their values.

    Args:
        config: The defaults.
        arguments: The command line.
        prefix: Prefix of the config's options: ``data.``.

    Raises:
        AutoReIDError: an option names something that is not registered, or belongs to another class.
    """
    config_class: type[Config] = type(config)
    types: dict[str, Any] = {}  # of the fields whose type the form changes
    if isinstance(config, RegisteredConfig):
        name = option(arguments, f"{prefix}{config.key}") or getattr(config, config.key)
        config_class = _chosen_class(config, name, arguments, prefix)
        types[config.key] = Literal[config.registry.names()]
    values = _values(config, config_class)
    if isinstance(config, RegisteredConfig):
        values[config.key] = name
    for field, value in values.items():
        if isinstance(value, Config):
            values[field] = form_of(value, arguments, f"{prefix}{field}.")
            if type(values[field]) is not type(value):
                types[field] = type(values[field])
    if not types:
        return config
    described: dict[str, Any] = {
        field: (field_type, Field(description=config_class.model_fields[field].description))
        for field, field_type in types.items()
    }
    form: type[Config] = create_model(
        config_class.__name__, __base__=config_class, __doc__=config_class.__doc__, **described
    )
    return form.model_construct(**values)


def _chosen_class(
    config: RegisteredConfig, name: str, arguments: list[str], prefix: str
) -> type[RegisteredConfig]:
    """Return the config class of ``name``; check that no option belongs to another class."""
    try:
        chosen = config.class_of(name)
    except AutoReIDError as error:
        raise AutoReIDError(f"--{prefix}{config.key}: {error}") from None
    fields = config.known_fields()
    for argument in arguments:
        given = argument.partition("=")[0]
        field = given.removeprefix(f"--{prefix}").partition(".")[0].replace("-", "_")
        if given.startswith(f"--{prefix}") and field in fields and field not in chosen.model_fields:
            raise AutoReIDError(f"{given}: not an option of --{prefix}{config.key} {name}")
    return chosen


def _values(config: Config, config_class: type[Config]) -> dict[str, Any]:
    """Return the values of ``config`` for the fields of ``config_class``.

    If that is another class, they are those that were set, and its own defaults for all others.
    """
    kept = set(type(config).model_fields) if config_class is type(config) else config.model_fields_set
    return {
        field: getattr(config, field)
        if field in kept
        else tyro.MISSING
        if info.is_required()
        else info.get_default(call_default_factory=True)
        for field, info in config_class.model_fields.items()
    }
