"""Auto-ReID (Quan et al., ICCV 2019) as a search / train / evaluate system on fused kernels."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoreid_fast.engine.evaluate import evaluate

__version__ = "0.1.0"
__all__ = ["__version__", "evaluate"]

_HOMES = {"evaluate": "autoreid_fast.engine.evaluate"}


def __getattr__(name: str) -> Any:
    """Import what the package offers when it is first asked for: `import autoreid_fast` alone stays quick."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
