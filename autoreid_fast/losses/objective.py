"""Equations (3) to (5): cross entropy L_s, batch-hard triplet L_t, retrieval loss L_ret."""

from typing import Literal, NamedTuple

import torch
from pydantic import Field

from autoreid_fast.ops import batch_hard
from autoreid_fast.schema import Config


class ObjectiveConfig(Config):
    """What a network is trained for."""

    loss: Literal["ce", "retrieval", "triplet"] = Field(
        "retrieval",
        description="ce: cross entropy alone (Table 1's Baseline rows); retrieval: Eq. (5), L_ret; "
        "triplet: batch-hard alone (TriNet).",
    )
    lambda_value: float = Field(
        0.5, ge=0, le=1, description="Lambda of Eq. (5): share of the cross entropy in L_ret (paper: 0.5)."
    )
    margin: float = Field(0.3, ge=0, description="Margin of the triplet loss (paper: 0.3).")
    triplet: Literal["hinge", "printed"] = Field(
        "hinge",
        description="hinge: max(0, margin + d_ap - d_an), as in the cited triplet paper; "
        "printed: max(margin, d_ap - d_an), as Eq. (4) prints it.",
    )


class LossTerms(NamedTuple):
    """A loss and what it is made of, each a scalar tensor; a term that is not in the loss is 0."""

    total: torch.Tensor
    cross_entropy: torch.Tensor
    triplet: torch.Tensor


def objective(
    feature: torch.Tensor,
    logits: torch.Tensor,
    labels: torch.Tensor,
    config: ObjectiveConfig,
    terms: Literal["ce", "ret", "triplet"] | None = None,
) -> LossTerms:
    """The loss of one batch.

    Args:
        feature: ``f``, (N, D) float: what the triplet loss compares by Euclidean distance.
        logits: ``h``, (N, identities) float; or (N, identities, strips), whose cross entropies add up.
        labels: (N,) int64 in 0..identities-1.
        config: lambda, margin and the form of the triplet loss.
        terms: ``ce`` (Eq. 3), ``triplet`` (Eq. 4) or ``ret`` (Eq. 5); by default what ``config.loss`` says.
    """
    if terms is None:
        terms = "ret" if config.loss == "retrieval" else config.loss
    zero = feature.new_zeros(())
    cross_entropy = _cross_entropy(logits, labels) if terms != "triplet" else zero
    if terms == "ce":
        return LossTerms(cross_entropy, cross_entropy, zero)
    triplet = batch_hard(feature, labels, margin=config.margin, form=config.triplet).loss
    if terms == "triplet":
        return LossTerms(triplet, zero, triplet)
    total = config.lambda_value * cross_entropy + (1 - config.lambda_value) * triplet
    return LossTerms(total, cross_entropy, triplet)


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Eq. (3), the mean over the batch; summed over the strips where there are any (PCB [30])."""
    if logits.ndim == 2:
        return torch.nn.functional.cross_entropy(logits, labels)
    strips = logits.shape[2]
    return strips * torch.nn.functional.cross_entropy(logits, labels[:, None].expand(-1, strips))
