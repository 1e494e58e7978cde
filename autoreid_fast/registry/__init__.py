"""Registries of everything that users can add by name, and the plugins that add it."""

from typing import TYPE_CHECKING

from autoreid_fast.lazy import lazy_exports

if TYPE_CHECKING:
    from autoreid_fast.registry.registered_config import RegisteredConfig, field_error
    from autoreid_fast.registry.registry import Entry, Registry

__all__ = ["Entry", "RegisteredConfig", "Registry", "field_error"]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Entry": ".registry",
        "RegisteredConfig": ".registered_config",
        "Registry": ".registry",
        "field_error": ".registered_config",
    },
)
