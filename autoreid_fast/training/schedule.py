"""Learning rates as pure functions of the epoch: a resumed run needs no saved schedule."""

import math
from collections.abc import Sequence

import torch


def cosine(epoch: int, epochs: int, start: float, end: float) -> float:
    """Decay from ``start`` at epoch 0 to ``end`` at ``epochs``, along half a cosine (Sec. 4.2, omega)."""
    return end + (start - end) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def linear(epoch: int, epochs: int, start: float, end: float) -> float:
    """Interpolate from ``start`` at epoch 0 to ``end`` at the last epoch (temperature of GDAS)."""
    return start + (end - start) * epoch / max(1, epochs - 1)


def step_decay(epoch: int, start: float, milestones: Sequence[int], factor: float = 0.1) -> float:
    """Multiply ``start`` by ``factor`` at every milestone epoch so far (Sec. 4.2, alpha and training)."""
    return start * factor ** sum(epoch >= milestone for milestone in milestones)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of all parameter groups; rates that are tensors are changed in place."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate
