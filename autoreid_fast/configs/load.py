"""Read a preset or a YAML file into a typed config."""

from importlib import resources
from pathlib import Path

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.plugins import import_recorded
from autoreid_fast.schema import AnyConfig, from_values, read_yaml

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
            reason = getattr(error, "strerror", None) or error
            raise AutoReIDError(f"config {source}: {reason}; give a YAML file or a preset: {names}") from None
    values = read_yaml(text, source)
    if not isinstance(values, dict):
        raise AutoReIDError(f"{source}: needs fields, one a line, as `epochs: 200`")
    import_recorded(values, source)
    written_for = values.pop("command", command)
    if written_for != command:
        raise AutoReIDError(f"{source} is a config of `{written_for}`, not of `{command}`")
    return from_values(config_class, values, source)
