"""Configuration of the objective, and the loss that it names."""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from autoreid_fast.losses.retrieval import IdentityLoss, LossTerms, RetrievalLoss, TripletLoss
from autoreid_fast.schema import Config


class ObjectiveConfig(Config):
    """Loss to train for."""

    loss: Literal["ce", "retrieval", "triplet"] = Field(
        "retrieval",
        description="ce: cross entropy only (Table 1's Baseline rows); retrieval: Eq. (5), L_ret; "
        "triplet: batch-hard only (TriNet).",
    )
    lambda_value: float = Field(
        0.5, ge=0, le=1, description="Lambda of Eq. (5): weight of the cross entropy in L_ret (paper: 0.5)."
    )
    margin: float = Field(0.3, ge=0, description="Margin of the triplet loss (paper: 0.3).")
    triplet: Literal["hinge", "printed"] = Field(
        "hinge",
        description="hinge: max(0, margin + d_ap - d_an), as in the cited triplet paper; "
        "printed: max(margin, d_ap - d_an), as Eq. (4) prints it.",
    )


def build_loss(config: ObjectiveConfig) -> nn.Module:
    """Build the loss that ``config`` names: a module of feature f, logits h and labels -> `LossTerms`."""
    if config.loss == "ce":
        return IdentityLoss()
    if config.loss == "triplet":
        return TripletLoss(config.margin, config.triplet)
    return RetrievalLoss(config.lambda_value, config.margin, config.triplet)


def objective(
    feature: Tensor,
    logits: Tensor,
    labels: Tensor,
    config: ObjectiveConfig,
    terms: Literal["ce", "ret", "triplet"] | None = None,
) -> LossTerms:
    """Compute the loss of one batch. To be removed: build the loss once, by `build_loss`."""
    if terms is not None:
        config = config.model_copy(update={"loss": "retrieval" if terms == "ret" else terms})
    loss: LossTerms = build_loss(config)(feature, logits, labels)
    return loss
