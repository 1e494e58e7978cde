"""Losses of Auto-ReID (Sec. 3.2) as modules: cross entropy, batch-hard triplet and their mixture, Eq. (5)."""

from typing import TYPE_CHECKING

from autoreid_fast.lazy import lazy_exports

if TYPE_CHECKING:
    from autoreid_fast.losses.modules import BatchHardTriplet, CrossEntropy
    from autoreid_fast.losses.registry import (
        LOSSES,
        AnyObjectiveConfig,
        ObjectiveConfig,
        build_loss,
        register_loss,
    )
    from autoreid_fast.losses.retrieval import IdentityLoss, LossTerms, RetrievalLoss, TripletLoss

__all__ = [
    "LOSSES",
    "AnyObjectiveConfig",
    "BatchHardTriplet",
    "CrossEntropy",
    "IdentityLoss",
    "LossTerms",
    "ObjectiveConfig",
    "RetrievalLoss",
    "TripletLoss",
    "build_loss",
    "register_loss",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "LOSSES": ".registry",
        "AnyObjectiveConfig": ".registry",
        "BatchHardTriplet": ".modules",
        "CrossEntropy": ".modules",
        "IdentityLoss": ".retrieval",
        "LossTerms": ".retrieval",
        "ObjectiveConfig": ".registry",
        "RetrievalLoss": ".retrieval",
        "TripletLoss": ".retrieval",
        "build_loss": ".registry",
        "register_loss": ".registry",
    },
)
