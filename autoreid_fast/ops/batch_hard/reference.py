"""Batch-hard mining and triplet loss in plain PyTorch; `autoreid_fast.ops.batch_hard` is the public face."""

import torch
from torch import Tensor


def accumulation_dtype(features: Tensor) -> torch.dtype:
    """float64 for float64 features, float32 for every other type."""
    return torch.float64 if features.dtype == torch.float64 else torch.float32


def batch_hard(
    features: Tensor, labels: Tensor, margin: float, printed: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Loss, hardest positive, hardest negative and their distances; arguments as the public face has them.

    Differentiable by autograd (twice, too): mining is a constant, the loss flows through the mined pairs.
    """
    x = features.to(accumulation_dtype(features))
    with torch.no_grad():
        # Direct differences: |a|^2 + |b|^2 - 2ab cancels for close pairs, the hardest negatives.
        distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
        same = labels[:, None] == labels[None, :]
        itself = torch.eye(len(x), dtype=torch.bool, device=x.device)
        farthest = distance.masked_fill(~same | itself, -1.0).argmax(1)
        largest = torch.finfo(distance.dtype).max  # behind an infinite distance, before a masked one
        nearest = distance.clamp(max=largest).masked_fill(same, torch.inf).argmin(1)
        valid = (same & ~itself).any(1) & ~same.all(1)
    zero = x.new_zeros(())
    # vector_norm has gradient 0 at 0: identical images push nobody.
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
    """d loss / d features, (N, D) in the dtype of features, from what the forward pass found."""
    x = features.to(positive_distance.dtype)
    valid = positive >= 0
    inactive = positive_distance - negative_distance <= (margin if printed else -margin)  # NaN is active
    scale = grad_loss / valid.sum().clamp(min=1)
    positive, negative = positive.clamp(min=0), negative.clamp(min=0)

    def pull(other: Tensor, distance: Tensor) -> Tensor:
        weight = torch.where(valid & ~inactive & (distance != 0), scale / distance, 0.0)
        return weight[:, None] * (x - x[other])

    towards, away = pull(positive, positive_distance), pull(negative, negative_distance)
    grad = (towards - away).index_add(0, positive, -towards).index_add(0, negative, away)
    return grad.to(features.dtype)
