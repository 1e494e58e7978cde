"""Losses of Auto-ReID (Sec. 3.2) as modules: cross entropy, batch-hard triplet and their mixture, Eq. (5)."""

from autoreid_fast.losses.config import ObjectiveConfig, build_loss, objective
from autoreid_fast.losses.modules import BatchHardTriplet, CrossEntropy
from autoreid_fast.losses.retrieval import IdentityLoss, LossTerms, RetrievalLoss, TripletLoss

__all__ = [
    "BatchHardTriplet",
    "CrossEntropy",
    "IdentityLoss",
    "LossTerms",
    "ObjectiveConfig",
    "RetrievalLoss",
    "TripletLoss",
    "build_loss",
    "objective",
]
