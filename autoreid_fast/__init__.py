"""Auto-ReID (Quan et al., ICCV 2019) as a search / train / evaluate system on fused kernels."""

from typing import TYPE_CHECKING

from autoreid_fast.lazy import lazy_exports

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

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Embedder": ".inference.embedder",
        "RerankConfig": ".evaluation.reranking",
        "create_model": ".models.registry",
        "evaluate": ".evaluation.evaluate",
        "k_reciprocal": ".evaluation.reranking",
        "load": ".inference.loading",
        "list_models": ".models.registry",
    },
)
