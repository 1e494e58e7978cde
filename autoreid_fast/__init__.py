"""Auto-ReID (Quan et al., ICCV 2019) as a search / train / evaluate system on fused kernels."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoreid_fast.evaluation.evaluate import evaluate
    from autoreid_fast.evaluation.reranking import RerankConfig, k_reciprocal
    from autoreid_fast.inference.embedder import Embedder
    from autoreid_fast.inference.loading import load
    from autoreid_fast.models.registry import create_model, list_models

__version__ = "0.1.0"
__all__ = [
    "Embedder",
    "RerankConfig",
    "__version__",
    "create_model",
    "evaluate",
    "k_reciprocal",
    "list_models",
    "load",
]

_HOMES = {
    "Embedder": "autoreid_fast.inference.embedder",
    "RerankConfig": "autoreid_fast.evaluation.reranking",
    "create_model": "autoreid_fast.models.registry",
    "evaluate": "autoreid_fast.evaluation.evaluate",
    "k_reciprocal": "autoreid_fast.evaluation.reranking",
    "load": "autoreid_fast.inference.loading",
    "list_models": "autoreid_fast.models.registry",
}


def __getattr__(name: str) -> Any:
    """Import what the package offers when it is first asked for: `import autoreid_fast` alone stays quick."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
