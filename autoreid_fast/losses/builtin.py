"""The paper's losses by name: ce, retrieval and triplet."""

from typing import Literal

from pydantic import Field

from autoreid_fast.losses.objectives import IdentityLoss, RetrievalLoss, TripletLoss
from autoreid_fast.losses.registry import ObjectiveConfig, register_loss


class PaperLossConfig(ObjectiveConfig):
    """Fields of the paper's three losses, which accept all of them."""

    lambda_value: float = Field(
        0.5, ge=0, le=1, description="Lambda of Eq. (5): weight of the cross entropy in L_ret (paper: 0.5)."
    )
    margin: float = Field(0.3, ge=0, description="Margin of the triplet loss (paper: 0.3).")
    triplet: Literal["hinge", "printed"] = Field(
        "hinge",
        description="hinge: max(0, margin + d_ap - d_an), as in the cited triplet paper; "
        "printed: max(margin, d_ap - d_an), as Eq. (4) prints it.",
    )


class RetrievalConfig(PaperLossConfig):
    """Eq. (5), L_ret."""


class IdentityConfig(PaperLossConfig):
    """Cross entropy only; the other losses' fields have no effect."""


class TripletConfig(PaperLossConfig):
    """Batch-hard triplet only; ``lambda_value`` has no effect."""


@register_loss("ce")
def build_identity(config: IdentityConfig) -> IdentityLoss:
    """Cross entropy only (Table 1's Baseline rows)."""
    return IdentityLoss()


@register_loss("retrieval")
def build_retrieval(config: RetrievalConfig) -> RetrievalLoss:
    """Retrieval loss L_ret, Eq. (5)."""
    return RetrievalLoss(config.lambda_value, config.margin, config.triplet)


@register_loss("triplet")
def build_triplet(config: TripletConfig) -> TripletLoss:
    """Batch-hard triplet only (TriNet)."""
    return TripletLoss(config.margin, config.triplet)
