"""Losses of Auto-ReID (Sec. 3.2) as modules: cross entropy, batch-hard triplet and their mixture, Eq. (5)."""

from typing import TYPE_CHECKING

from autoreid_fast.lazy import lazy_exports

if TYPE_CHECKING:
    from autoreid_fast.losses.objectives import IdentityLoss, LossTerms, RetrievalLoss, TripletLoss
    from autoreid_fast.losses.registry import (
        LOSSES,
        AnyObjectiveConfig,
        ObjectiveConfig,
        build_loss,
        register_loss,
    )
    from autoreid_fast.losses.terms import BatchHardTriplet, CrossEntropy

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
        "BatchHardTriplet": ".terms",
        "CrossEntropy": ".terms",
        "IdentityLoss": ".objectives",
        "LossTerms": ".objectives",
        "ObjectiveConfig": ".registry",
        "RetrievalLoss": ".objectives",
        "TripletLoss": ".objectives",
        "build_loss": ".registry",
        "register_loss": ".registry",
    },
)
