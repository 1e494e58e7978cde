"""Batch-hard mining and triplet loss in plain PyTorch: the reference of `ops.batch_hard`."""

import torch
from torch import Tensor

from autoreid_fast.ops.arguments import accumulation_dtype


def batch_hard(
    features: Tensor, labels: Tensor, margin: float, printed: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Loss, hardest positive, hardest negative and their distances; arguments as in `ops.batch_hard`.

    Differentiable by autograd, also twice: the mined indices are constants, and gradients flow through the
    distances of the mined pairs.
    """
    x = features.to(accumulation_dtype(features))
    with torch.no_grad():
        # Direct differences: |a|^2 + |b|^2 - 2ab cancels for close pairs, the hardest negatives.
        constant = x.detach()  # cdist has no forward-mode derivative
        distance = torch.cdist(constant, constant, compute_mode="donot_use_mm_for_euclid_dist")
        same = labels[:, None] == labels[None, :]
        itself = torch.eye(len(x), dtype=torch.bool, device=x.device)
        farthest = distance.masked_fill(~same | itself, -1.0).argmax(1)
        largest = torch.finfo(distance.dtype).max  # an infinite distance still sorts before a masked entry
        nearest = distance.clamp(max=largest).masked_fill(same, torch.inf).argmin(1)
        valid = (same & ~itself).any(1) & ~same.all(1)
    zero = x.new_zeros(())
    # The gradient of vector_norm at 0 is 0: identical images have no effect.
    positive_distance = torch.where(valid, torch.linalg.vector_norm(x - x[farthest], dim=1), zero)
    negative_distance = torch.where(valid, torch.linalg.vector_norm(x - x[nearest], dim=1), zero)
    excess = positive_distance - negative_distance
    terms = torch.where(excess <= margin, margin, excess) if printed else torch.relu(margin + excess)
    loss = torch.where(valid, terms, zero).sum() / valid.sum().clamp(min=1)
    return (
        loss,
        torch.where(valid, farthest, -1),
        torch.where(valid, nearest, -1),
        positive_distance.detach(),
        negative_distance.detach(),
    )


def batch_hard_backward(
    grad_loss: Tensor,
    features: Tensor,
    positive: Tensor,
    negative: Tensor,
    positive_distance: Tensor,
    negative_distance: Tensor,
    margin: float,
    printed: bool,
) -> Tensor:
    """d loss / d features, (N, D) in the dtype of features, from the pairs that the forward pass mined."""
    x = features.to(positive_distance.dtype)
    valid = positive >= 0
    inactive = positive_distance - negative_distance <= (margin if printed else -margin)  # NaN is active
    scale = grad_loss / valid.sum().clamp(min=1)
    positive, negative = positive.clamp(min=0), negative.clamp(min=0)

    def grad_of_distance(other: Tensor, distance: Tensor) -> Tensor:
        weight = torch.where(valid & ~inactive & (distance != 0), scale / distance, 0.0)
        return weight[:, None] * (x - x[other])

    from_positive = grad_of_distance(positive, positive_distance)
    from_negative = grad_of_distance(negative, negative_distance)
    grad = from_positive - from_negative
    grad = grad.index_add(0, positive, -from_positive).index_add(0, negative, from_negative)
    return grad.to(features.dtype)
