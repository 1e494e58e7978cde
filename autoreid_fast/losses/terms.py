"""The two terms of the paper's objective: cross entropy L_s (Eq. 3) and batch-hard triplet L_t (Eq. 4)."""

from torch import Tensor, nn

from autoreid_fast.ops import batch_hard
from autoreid_fast.ops.batch_hard import Form


class CrossEntropy(nn.Module):
    """Identity classification loss L_s, Eq. (3): cross entropy, averaged over the batch.

    Where each strip has a classifier of its own (the tails ``pcb`` and ``hpm``), the strips' losses add up,
    as in PCB [30].

    Examples:
        >>> import torch
        >>> from autoreid_fast.losses import CrossEntropy
        >>> logits = torch.zeros(4, 10)  # four images, ten identities, no preference
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> round(CrossEntropy()(logits, labels).item(), 4)
        2.3026
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            logits: (N, identities), or (N, identities, strips), float.
            labels: (N,) int64 in 0 .. identities - 1.
        """
        if logits.ndim == 2:
            return nn.functional.cross_entropy(logits, labels)
        strips = logits.shape[2]
        return strips * nn.functional.cross_entropy(logits, labels[:, None].expand(-1, strips))


class BatchHardTriplet(nn.Module):
    """Batch-hard triplet loss L_t, Eq. (4), on one fused op (`autoreid_fast.ops.batch_hard`).

    Each anchor is compared with its farthest positive and its nearest negative in the batch, by Euclidean
    distance: max(0, margin + d_ap - d_an), averaged over the anchors that have both.

    Args:
        margin: Margin of the hinge, in units of distance (paper: 0.3).
        form: ``"hinge"``, or ``"printed"`` for max(margin, d_ap - d_an), as Eq. (4) is printed.

    Examples:
        >>> import torch
        >>> from autoreid_fast.losses import BatchHardTriplet
        >>> feature = torch.tensor([[0.0, 0.0], [0.0, 1.0], [3.0, 0.0], [3.0, 1.0]], requires_grad=True)
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> loss = BatchHardTriplet(margin=2.5)(feature, labels)  # d_ap = 1, d_an = 3
        >>> loss.backward()
        >>> loss.item()
        0.5
    """

    def __init__(self, margin: float = 0.3, form: Form = "hinge") -> None:
        super().__init__()
        self.margin = margin
        self.form: Form = form

    def forward(self, feature: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            feature: (N, D) float, N up to 4096.
            labels: (N,) int64.
        """
        return batch_hard(feature, labels, margin=self.margin, form=self.form).loss

    def extra_repr(self) -> str:
        return f"margin={self.margin}, form={self.form!r}"
