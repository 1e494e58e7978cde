"""Typed configs from YAML: presets by name, files by path."""

from autoreid_fast.configs.load import AnyConfig, from_values, load_config, preset_names, wrong_fields

__all__ = ["AnyConfig", "from_values", "load_config", "preset_names", "wrong_fields"]
