"""The objectives of Auto-ReID: cross entropy, batch-hard triplet and their mixture (Sec. 3.2)."""

from autoreid_fast.losses.objective import LossTerms, ObjectiveConfig, objective

__all__ = ["LossTerms", "ObjectiveConfig", "objective"]
