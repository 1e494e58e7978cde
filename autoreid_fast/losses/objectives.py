"""Objectives: losses of a whole network output, reported term by term. Eq. (5) and its two halves."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from autoreid_fast.losses.terms import BatchHardTriplet, CrossEntropy
from autoreid_fast.ops.batch_hard import Form


class LossTerms(NamedTuple):
    """Loss of one batch and the terms to report with it."""

    total: Tensor
    """The loss to minimise, a scalar."""
    terms: Mapping[str, Tensor]
    """Scalars for the log and the history, by name; the same names in every step."""


class IdentityLoss(nn.Module):
    """Cross entropy only: L_s, the objective of Table 1's "Baseline" rows.

    Examples:
        >>> import torch
        >>> from autoreid_fast.losses import IdentityLoss
        >>> feature, logits, labels = torch.randn(4, 8), torch.zeros(4, 10), torch.tensor([0, 0, 1, 1])
        >>> round(IdentityLoss()(feature, logits, labels).total.item(), 4)
        2.3026
    """

    def __init__(self) -> None:
        super().__init__()
        self.cross_entropy = CrossEntropy()

    def forward(self, feature: Tensor, logits: Tensor, labels: Tensor) -> LossTerms:
        """As `RetrievalLoss.forward`; ``feature`` is not used."""
        loss = self.cross_entropy(logits, labels)
        return LossTerms(loss, {"cross_entropy": loss, "triplet": feature.new_zeros(())})


class TripletLoss(nn.Module):
    """Batch-hard triplet only: L_t, the objective of TriNet [14].

    Args:
        margin: Margin of the triplet loss (paper: 0.3).
        form: ``"hinge"`` or ``"printed"``, see `BatchHardTriplet`.

    Examples:
        >>> import torch
        >>> from autoreid_fast.losses import TripletLoss
        >>> feature, logits, labels = torch.zeros(4, 8), torch.zeros(4, 10), torch.tensor([0, 0, 1, 1])
        >>> round(TripletLoss(margin=0.3)(feature, logits, labels).total.item(), 4)
        0.3
    """

    def __init__(self, margin: float = 0.3, form: Form = "hinge") -> None:
        super().__init__()
        self.triplet = BatchHardTriplet(margin, form)

    def forward(self, feature: Tensor, logits: Tensor, labels: Tensor) -> LossTerms:
        """As `RetrievalLoss.forward`; ``logits`` are not used."""
        loss = self.triplet(feature, labels)
        return LossTerms(loss, {"cross_entropy": feature.new_zeros(()), "triplet": loss})


class RetrievalLoss(nn.Module):
    """Retrieval loss L_ret = lambda L_s + (1 - lambda) L_t, Eq. (5).

    Args:
        lambda_value: Weight of the cross entropy, 0 to 1 (paper: 0.5).
        margin: Margin of the triplet loss (paper: 0.3).
        form: ``"hinge"`` or ``"printed"``, see `BatchHardTriplet`.

    Examples:
        >>> import torch
        >>> from autoreid_fast.losses import RetrievalLoss
        >>> feature = torch.randn(4, 8, requires_grad=True)  # f
        >>> logits = torch.randn(4, 10, requires_grad=True)  # h
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> loss = RetrievalLoss(lambda_value=0.5)(feature, logits, labels)
        >>> loss.total.backward()
        >>> sorted(loss.terms)
        ['cross_entropy', 'triplet']
    """

    def __init__(self, lambda_value: float = 0.5, margin: float = 0.3, form: Form = "hinge") -> None:
        super().__init__()
        self.lambda_value = lambda_value
        self.cross_entropy = CrossEntropy()
        self.triplet = BatchHardTriplet(margin, form)

    def forward(self, feature: Tensor, logits: Tensor, labels: Tensor) -> LossTerms:
        """Return the loss and its two terms.

        Args:
            feature: f, (N, D) float, compared by Euclidean distance.
            logits: h, (N, identities) float; or (N, identities, strips), whose cross entropies add up.
            labels: (N,) int64 in 0 .. identities - 1.
        """
        cross_entropy = self.cross_entropy(logits, labels)
        triplet = self.triplet(feature, labels)
        total = self.lambda_value * cross_entropy + (1 - self.lambda_value) * triplet
        return LossTerms(total, {"cross_entropy": cross_entropy, "triplet": triplet})

    def extra_repr(self) -> str:
        return f"lambda_value={self.lambda_value}"
