"""Loading a preset or a YAML file as a typed config."""

from importlib import resources
from pathlib import Path

from autoreid_fast.errors import AutoReIDError, did_you_mean
from autoreid_fast.files import descriptor_of, require_regular
from autoreid_fast.registry.plugins import RECORD, import_recorded
from autoreid_fast.schema import AnyConfig, from_values, read_yaml

_PRESETS = resources.files("autoreid_fast.configs") / "presets"


def preset_names(command: str = "") -> list[str]:
    """List the names of all presets, or of those for ``search``, ``pretrain`` or ``train``."""
    ending = f"-{command}.yaml" if command else ".yaml"
    names = (entry.name for entry in _PRESETS.iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(ending))


def load_config(config_class: type[AnyConfig], source: str, command: str) -> AnyConfig:
    """Load a config of ``command``.

    Args:
        config_class: Class of the config.
        source: Name of a preset, or path of a YAML file such as a run's config.yaml, or of an open pipe.
        command: ``search``, ``pretrain`` or ``train``.

    Raises:
        AutoReIDError: there is no such preset or file, it is not YAML or a config of another command, a field
            is unknown or a value is not allowed; the message names the file and the field.
    """
    if source in preset_names():
        text = (_PRESETS / f"{source}.yaml").read_text(encoding="utf-8")
    else:
        try:
            text = _read(Path(source))
        except (OSError, UnicodeDecodeError) as error:
            names = preset_names(command)
            reason = getattr(error, "strerror", None) or error
            hint = (
                did_you_mean(source, names)
                or f"expected a YAML file or one of the presets {', '.join(names)}"
            )
            raise AutoReIDError(f"config {source}: {reason}; {hint}") from None
    values = read_yaml(text, source)
    if not isinstance(values, dict):
        raise AutoReIDError(f"{source}: expected fields, one per line, like `epochs: 200`")
    import_recorded(values.pop(RECORD, []), source)
    written_for = values.pop("command", command)
    if written_for != command:
        raise AutoReIDError(f"{source}: a config of `{written_for}`, expected one of `{command}`")
    return from_values(config_class, values, source)


def _read(path: Path) -> str:
    if descriptor_of(path) is None:  # the pipe of a shell's <(...) has a writer
        require_regular(path)
    return path.read_text(encoding="utf-8")
