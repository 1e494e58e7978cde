"""Evaluation: protocol, ranking, re-ranking, scores, features on disk, records for reports.

`autoreid_fast.evaluate` scores features of any origin; `Evaluator` scores a network on a data set.
"""

from typing import TYPE_CHECKING

from autoreid_fast.lazy import lazy_exports

if TYPE_CHECKING:
    from autoreid_fast.evaluation.evaluator import Evaluator
    from autoreid_fast.evaluation.features import LabeledFeatures, load_features, save_features
    from autoreid_fast.evaluation.metrics import Evaluation
    from autoreid_fast.evaluation.protocol import GalleryRanks, Labels, Metric
    from autoreid_fast.evaluation.ranking import rank_gallery
    from autoreid_fast.evaluation.reranking import RerankConfig, k_reciprocal

__all__ = [
    "Evaluation",
    "Evaluator",
    "GalleryRanks",
    "LabeledFeatures",
    "Labels",
    "Metric",
    "RerankConfig",
    "k_reciprocal",
    "load_features",
    "rank_gallery",
    "save_features",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Evaluation": ".metrics",
        "Evaluator": ".evaluator",
        "GalleryRanks": ".protocol",
        "LabeledFeatures": ".features",
        "Labels": ".protocol",
        "Metric": ".protocol",
        "RerankConfig": ".reranking",
        "k_reciprocal": ".reranking",
        "load_features": ".features",
        "rank_gallery": ".ranking",
        "save_features": ".features",
    },
)
