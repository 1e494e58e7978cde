"""Typed configs from presets and YAML files."""

from autoreid_fast.configs.load import load_config, preset_names
from autoreid_fast.schema import AnyConfig, from_values, wrong_fields

__all__ = ["AnyConfig", "from_values", "load_config", "preset_names", "wrong_fields"]
