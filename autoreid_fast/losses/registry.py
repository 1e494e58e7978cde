"""Registry of losses: a name in `objective.loss` chooses a loss and the class of its config."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import Field, SerializeAsAny
from torch import Tensor, nn

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.losses.objectives import LossTerms
from autoreid_fast.registry import RegisteredConfig, Registry
from autoreid_fast.schema import require_config

LOSSES: Registry[Callable[[Any], nn.Module]] = Registry("loss", builtin="autoreid_fast.losses.builtin")
register_loss = LOSSES.register


class ObjectiveConfig(RegisteredConfig):
    """Loss to train for. ``loss`` chooses a subclass, which has the fields of that loss."""

    registry: ClassVar[Registry[Any]] = LOSSES
    key: ClassVar[str] = "loss"
    default: ClassVar[str] = "retrieval"

    loss: str = Field(
        "retrieval",
        description="ce: cross entropy only (Table 1's Baseline rows); retrieval: Eq. (5), L_ret; "
        "triplet: batch-hard only (TriNet).",
    )


AnyObjectiveConfig = SerializeAsAny[ObjectiveConfig]
"""Type of a config's field that holds the config of any loss: dumped with the fields of its own class."""


def build_loss(config: ObjectiveConfig) -> nn.Module:
    """Build the loss that ``config`` names.

    Returns:
        A module of feature f (N, D), logits h (N, identities) or (N, identities, strips) and labels (N,)
        int64, which returns `LossTerms`.

    Raises:
        AutoReIDError: no loss is registered under that name, or it has parameters, which nothing trains.

    Examples:
        A loss of one's own, in a file that ``--import`` names:

        >>> from torch import Tensor, nn
        >>> from autoreid_fast.losses import LossTerms, ObjectiveConfig, build_loss, register_loss
        >>> class SmoothConfig(ObjectiveConfig):
        ...     smoothing: float = 0.1
        >>> @register_loss("smooth_ce")
        ... class SmoothCrossEntropy(nn.Module):
        ...     "Cross entropy with label smoothing."
        ...
        ...     def __init__(self, config: SmoothConfig) -> None:
        ...         super().__init__()
        ...         self.cross_entropy = nn.CrossEntropyLoss(label_smoothing=config.smoothing)
        ...
        ...     def forward(self, feature: Tensor, logits: Tensor, labels: Tensor) -> LossTerms:
        ...         loss = self.cross_entropy(logits, labels)
        ...         return LossTerms(loss, {"smooth_ce": loss})
        >>> build_loss(ObjectiveConfig(loss="smooth_ce", smoothing=0.2)).cross_entropy.label_smoothing
        0.2
    """
    require_config(config, ObjectiveConfig)
    loss = LOSSES[config.loss].build(config)
    if not isinstance(loss, nn.Module):
        raise AutoReIDError(f"loss {config.loss}: expected an nn.Module, got {type(loss).__name__}")
    if next(loss.parameters(), None) is not None:
        raise AutoReIDError(
            f"loss {config.loss}: has parameters, which the optimiser does not train; use buffers, or make "
            "them part of the network"
        )
    loss.register_forward_hook(partial(_check_terms, config.loss))
    return loss


def advice_on_nonfinite(config: ObjectiveConfig) -> str:
    """Say what to do if the loss that ``config`` names is NaN or infinite."""
    entry = LOSSES[config.loss]
    own = f"check your loss {entry.name} ({entry.origin}), " if entry.own else ""
    return f"{own}lower the learning rate, or set nonfinite to skip"


def _check_terms(name: str, loss: nn.Module, inputs: Any, terms: Any) -> None:
    """Raise AutoReIDError unless a loss returned a `LossTerms` of scalars, with a gradient if needed."""
    if not isinstance(terms, LossTerms):
        raise AutoReIDError(f"loss {name}: expected a LossTerms, got {type(terms).__name__}")
    for part, value in {"total": terms.total, **terms.terms}.items():
        if not isinstance(value, Tensor) or value.ndim:
            shown = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise AutoReIDError(f"loss {name}: `{part}` is of {shown}; expected a tensor of shape ()")
    wanted = torch.is_grad_enabled() and any(
        value.requires_grad for value in inputs if isinstance(value, Tensor)
    )
    if wanted and not terms.total.requires_grad:
        raise AutoReIDError(f"loss {name}: `total` has no gradient; compute it from f or the logits")
