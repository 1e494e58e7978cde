"""Learning rates as pure functions of the epoch, so that a resumed run needs no schedule state."""

import math
from collections.abc import Sequence
from typing import Any

import torch


def cosine(epoch: int, epochs: int, start: float, end: float) -> float:
    """From ``start`` at epoch 0 towards ``end`` at ``epochs`` along half a cosine (Sec. 4.2, omega)."""
    return end + (start - end) * (1 + math.cos(math.pi * epoch / epochs)) / 2


def linear(epoch: int, epochs: int, start: float, end: float) -> float:
    """From ``start`` at epoch 0 to ``end`` at the last one, ``epochs`` - 1 (GDAS's temperature)."""
    return start + (end - start) * epoch / max(1, epochs - 1)


def step_decay(epoch: int, start: float, milestones: Sequence[int], factor: float = 0.1) -> float:
    """``start``, times ``factor`` from each milestone epoch on (Sec. 4.2, alpha and training)."""
    return start * factor ** sum(epoch >= milestone for milestone in milestones)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every parameter group of ``optimizer`` one learning rate, a rate that is a tensor in its place."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate


def keep_settings(optimizer: torch.optim.Optimizer) -> None:
    """Let ``optimizer`` load the moments of a state and none of its settings.

    What its groups say (rates as tensors or numbers, fused, capturable) is of the device it runs on, and a
    checkpoint may come from another one; learning rates are set by the epoch.
    """

    def with_own_settings(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        pairs = zip(optimizer.param_groups, state["param_groups"], strict=False)
        state["param_groups"] = [{**own, "params": saved["params"]} for own, saved in pairs]

    optimizer.register_load_state_dict_pre_hook(with_own_settings)
