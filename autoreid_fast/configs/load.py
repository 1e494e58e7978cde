"""Read a preset or a YAML file into a typed config."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.schema import Config

AnyConfig = TypeVar("AnyConfig", bound=Config)

_PRESETS = resources.files("autoreid_fast.configs") / "presets"


def preset_names(command: str = "") -> list[str]:
    """The names of the shipped presets: all, or those of ``search``, ``pretrain`` or ``train``."""
    ending = f"-{command}.yaml" if command else ".yaml"
    names = (entry.name for entry in _PRESETS.iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(ending))


def load_config(config_class: type[AnyConfig], source: str, command: str) -> AnyConfig:
    """The config of ``command`` in ``source``: a preset's name, or a YAML file (a run's config.yaml too).

    Raises:
        AutoReIDError: no such preset or file, not YAML, a config of another command, an unknown field or a
            value that does not fit; the message names the file and the field.
    """
    if source in preset_names():
        text = (_PRESETS / f"{source}.yaml").read_text(encoding="utf-8")
    else:
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            names = ", ".join(preset_names(command))
            raise AutoReIDError(f"config {source}: {error}; give a YAML file or a preset: {names}") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise AutoReIDError(f"{source}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise AutoReIDError(f"{source}: needs fields, one a line, as `epochs: 200`")
    written_for = values.pop("command", command)
    if written_for != command:
        raise AutoReIDError(f"{source} is a config of `{written_for}`, not of `{command}`")
    return from_values(config_class, values, source)


def from_values(config_class: type[AnyConfig], values: Mapping[str, Any], source: str) -> AnyConfig:
    """Check ``values`` against ``config_class``; ``source`` is what an error names.

    Raises:
        AutoReIDError: an unknown field or a value that does not fit.
    """
    try:
        return config_class.model_validate(values)
    except ValidationError as error:
        raise AutoReIDError(f"{source}: {wrong_fields(error)}") from None


def wrong_fields(error: ValidationError) -> str:
    """What pydantic found wrong, in one line: each field by its name in YAML and on the command line."""
    wrong = []
    for detail in error.errors():
        field = ".".join(str(part) for part in detail["loc"])
        known = detail["type"] != "extra_forbidden"
        wrong.append(
            f"{field}: {detail['msg']}, got {detail['input']!r}" if known else f"{field}: unknown field"
        )
    return "; ".join(wrong)
