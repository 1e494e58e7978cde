"""Batch-hard triplet loss (the paper's L_t, Eq. (4); Hermans et al., 2017) in one fused op."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops import contract
from autoreid_fast.ops.batch_hard import reference as twin

MAX_ANCHORS = 4096

Form = Literal["hinge", "printed"]


class BatchHard(NamedTuple):
    """What `batch_hard` returns. Gradient flows from `loss` alone; the other four are constants.

    The distances and the loss are float64 for float64 features, float32 otherwise.
    """

    loss: Tensor
    """() mean over the valid anchors; 0 where there is none."""
    positive: Tensor
    """(N,) int64: index of the farthest feature with the anchor's label; -1 where the anchor is not valid."""
    negative: Tensor
    """(N,) int64: index of the nearest feature with another label; -1 where the anchor is not valid."""
    positive_distance: Tensor
    """(N,) Euclidean distance to `positive`; 0 where the anchor is not valid."""
    negative_distance: Tensor
    """(N,) Euclidean distance to `negative`; 0 where the anchor is not valid."""


def batch_hard(features: Tensor, labels: Tensor, margin: float = 0.3, form: Form = "hinge") -> BatchHard:
    """Triplet loss of every anchor with its farthest positive and nearest negative in the batch.

    An anchor is valid if the batch has another feature of its label and one of another label; the rest are
    left out of the mean. Distances are Euclidean, by direct differences. Equal distances: the lower index.

    Args:
        features: (N, D) float32, float16, bfloat16, or float64 (on CUDA: by the reference twin); N from 1 to
            4096; any strides (columns that are not adjacent cost a copy). Half types: float32 inside.
        labels: (N,) int64 on the same device.
        margin: in units of distance; the paper's [14] has 0.3.
        form: `"hinge"` is max(0, margin + d_ap - d_an), as [14] has it; `"printed"` is
            max(margin, d_ap - d_an), as Eq. (4) is printed.

    Returns:
        loss, indices and distances. The gradient with respect to `features` is 0 where a distance is 0 or
        a term is at its kink. It is differentiable once (twice under `ops.backend("reference")`).

    Raises:
        AutoReIDError: a wrong shape, dtype, device or form.
    """
    _check(features, labels, form)
    printed = form == "printed"
    if contract.reference_forced() or (features.dtype == torch.float64 and features.is_cuda):
        return BatchHard(*twin.batch_hard(features, labels, margin, printed))
    return BatchHard(*torch.ops.autoreid_fast.batch_hard(features, labels, margin, printed))


def _check(features: Tensor, labels: Tensor, form: str) -> None:
    if form not in ("hinge", "printed"):
        raise AutoReIDError(f"batch_hard: form is {form!r}; it is 'hinge' or 'printed'")
    if features.ndim != 2 or features.shape[1] == 0:
        raise AutoReIDError(
            f"batch_hard: features have shape {tuple(features.shape)}; expected (N, D), D >= 1"
        )
    if not 1 <= features.shape[0] <= MAX_ANCHORS:
        raise AutoReIDError(
            f"batch_hard: features have {features.shape[0]} rows, not 1 to {MAX_ANCHORS}: split the batch"
        )
    if features.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        raise AutoReIDError(f"batch_hard: features are {features.dtype}; expected a floating type")
    if labels.ndim != 1 or labels.shape[0] != features.shape[0]:
        raise AutoReIDError(
            f"batch_hard: labels have shape {tuple(labels.shape)}; expected one a row of features, "
            f"({features.shape[0]},)"
        )
    if labels.dtype != torch.int64:
        raise AutoReIDError(
            f"batch_hard: labels are {labels.dtype}; expected torch.int64: call labels.long()"
        )
    if labels.device != features.device:
        raise AutoReIDError(f"batch_hard: labels are on {labels.device}, features on {features.device}")


def _fake(features: Tensor, labels: Tensor, margin: float, printed: bool) -> tuple[Tensor, ...]:
    count = features.shape[0]
    dtype = twin.accumulation_dtype(features)
    return (
        features.new_empty((), dtype=dtype),
        labels.new_empty((count,)),
        labels.new_empty((count,)),
        features.new_empty((count,), dtype=dtype),
        features.new_empty((count,), dtype=dtype),
    )


def _fake_backward(grad_loss: Tensor, features: Tensor, *rest: Any) -> Tensor:
    return features.new_empty(features.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    features, _, ctx.margin, ctx.printed = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # no zeros for the others
    ctx.save_for_backward(features, *output[1:])


def _backward(ctx: Any, grad_loss: Tensor | None, *rest: Any) -> tuple[Tensor | None, None, None, None]:
    if grad_loss is None:
        return None, None, None, None
    grad = torch.ops.autoreid_fast.batch_hard_backward(grad_loss, *ctx.saved_tensors, ctx.margin, ctx.printed)
    return grad, None, None, None


def _no_second_derivative(ctx: Any, *rest: Any) -> None:
    raise AutoReIDError(
        "batch_hard: the native op is differentiable once; use ops.backend('reference') for more"
    )


contract.define(
    "batch_hard",
    "(Tensor features, Tensor labels, float margin, bool printed) -> "
    "(Tensor loss, Tensor positive, Tensor negative, Tensor positive_distance, Tensor negative_distance)",
    twin.batch_hard,
    _fake,
)
contract.define(
    "batch_hard_backward",
    "(Tensor grad_loss, Tensor features, Tensor positive, Tensor negative, Tensor positive_distance, "
    "Tensor negative_distance, float margin, bool printed) -> Tensor",
    twin.batch_hard_backward,
    _fake_backward,
)
torch.library.register_autograd("autoreid_fast::batch_hard", _backward, setup_context=_setup_context)
torch.library.register_autograd("autoreid_fast::batch_hard_backward", _no_second_derivative)
