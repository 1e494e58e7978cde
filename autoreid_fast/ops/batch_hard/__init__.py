"""Batch-hard triplet loss (the paper's L_t, Eq. (4); Hermans et al., 2017) in one fused op."""

from typing import Literal, NamedTuple

from torch import Tensor

from autoreid_fast.ops.batch_hard.spec import ARGUMENTS, BATCH_HARD, MAX_ANCHORS
from autoreid_fast.ops.contract import run

__all__ = ["MAX_ANCHORS", "BatchHard", "Form", "batch_hard"]

Form = Literal["hinge", "printed"]


class BatchHard(NamedTuple):
    """Loss and mined pairs. Only `loss` is differentiable; the other four are constants.

    Distances and loss are float64 for float64 features, float32 otherwise.
    """

    loss: Tensor
    """() mean over the valid anchors; 0 if there are none."""
    positive: Tensor
    """(N,) int64: index of the farthest feature with the anchor's label; -1 if the anchor is not valid."""
    negative: Tensor
    """(N,) int64: index of the nearest feature with another label; -1 if the anchor is not valid."""
    positive_distance: Tensor
    """(N,) Euclidean distance to `positive`; 0 if the anchor is not valid."""
    negative_distance: Tensor
    """(N,) Euclidean distance to `negative`; 0 if the anchor is not valid."""


def batch_hard(features: Tensor, labels: Tensor, margin: float = 0.3, form: Form = "hinge") -> BatchHard:
    """Triplet loss of every anchor with its farthest positive and nearest negative in the batch.

    An anchor is valid if the batch has another feature of its label and one of another label; the mean is
    over the valid anchors. Distances are Euclidean, from direct differences. Among equal distances the
    lower index is chosen.

    Args:
        features: (N, D) float32, float16, bfloat16, or float64 (which on CUDA uses the reference);
            N from 1 to 4096; any strides (columns that are not adjacent are copied). Half types are computed
            in float32.
        labels: (N,) int64 on the same device.
        margin: in units of distance; 0.3 in the paper's [14].
        form: `"hinge"` is max(0, margin + d_ap - d_an), as in [14]; `"printed"` is
            max(margin, d_ap - d_an), as Eq. (4) is printed.

    Returns:
        loss, indices and distances. The gradient with respect to `features` is 0 where a distance is 0 or
        a term is at its kink. It is differentiable once (twice under `ops.backend("reference")`).

    Raises:
        AutoReIDError: a wrong shape, dtype, device or form.

    Examples:
        >>> import torch
        >>> from autoreid_fast import ops
        >>> features = torch.tensor([[0.0], [1.0], [3.0], [9.0]], requires_grad=True)
        >>> mined = ops.batch_hard(features, torch.tensor([0, 0, 1, 1]), margin=0.3)
        >>> mined.positive, mined.negative
        (tensor([1, 0, 3, 2]), tensor([2, 2, 1, 1]))
        >>> mined.loss.backward()
    """
    ARGUMENTS.check(features=features, labels=labels, margin=margin, form=form)
    return BatchHard(*run(BATCH_HARD, features, labels, margin, form == "printed"))
