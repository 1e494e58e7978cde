"""The mixture of Eq. (2) for a whole node: the weighted sum of all normalised candidates, in one fused op."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops import contract, triton_kernels
from autoreid_fast.ops.checks import require
from autoreid_fast.ops.mixed_op_sum import reference as twin
from autoreid_fast.ops.mixed_op_sum.sync import sync_mixed_op_sum

MAX_CANDIDATES = 64
MAX_POSITIONS = 2**31 - 4097
"""Of N * H * W: the last tile's end must be an int32."""


def mixed_op_sum(
    candidates: Sequence[Tensor],
    weights: Tensor,
    normalized: Sequence[bool],
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    *,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    statistics: Sequence[Tensor | None] | None = None,
    sync: bool = False,
) -> Tensor:
    """y = sum_k w_k BN(z_k), over the K candidates of all edges that enter a node.

    BN has no affine part: (z - mean) / sqrt(var + eps) for each channel of each candidate, as
    `nn.BatchNorm2d(affine=False)`. The backward pass keeps the candidates and (2, K, C) statistics alone.

    Args:
        candidates: K tensors (N, C, H, W) of one shape, dtype and device; K from 1 to 64. float32, float16,
            bfloat16, or float64 (on CUDA: by the reference twin). The first one's layout, contiguous or
            channels_last, is that of the result; candidates that lie otherwise cost a copy. Half types:
            float32 inside (on the CPU they cost a copy).
        weights: (K,), any floating dtype.
        normalized: K flags: whether BN stands behind the candidate; False is a plain w_k z_k.
        running_mean: (K, C) float32 (float64 for float64 candidates), a row a candidate; rows of plain ones
            mean nothing.
        running_var: likewise; unbiased, as `nn.BatchNorm2d` keeps it. Both or neither.
        training: normalise by batch statistics, and move the running ones towards them in place; otherwise
            by the running ones, which are constants, or by batch statistics where there are none.
        momentum: the share of the batch in the running statistics.
        eps: added to the variances.
        statistics: for each candidate None or its (2, C) batch mean and biased variance where a producer has
            them already (it saves one read). Gradients flow as if they had been computed here.
        sync: take batch statistics over the images of all processes of torch.distributed, as
            `sync_batch_norm` does; `statistics` are this process's own.

    Returns:
        (N, C, H, W), dtype and memory format of the first candidate. Differentiable once with respect to
        candidates and weights (more often under `ops.backend("reference")`).

    Raises:
        AutoReIDError: a wrong shape, dtype, device or number; one value a channel, which has no variance.
    """
    _check(candidates, weights, normalized)
    first = candidates[0]
    weights = weights.to(twin.accumulation_dtype(first))
    batch = training or running_mean is None
    _check_running(running_mean, running_var, candidates, weights)
    if batch and any(normalized) and first.numel() == first.shape[1]:
        raise AutoReIDError(
            f"mixed_op_sum: one value a channel, shape {tuple(first.shape)}, has no batch statistics: "
            "more images, or evaluate by running statistics"
        )
    kinds = [(twin.BATCH if batch else twin.FIXED) if flag else twin.PLAIN for flag in normalized]
    given = None
    if not batch:
        assert running_mean is not None and running_var is not None
        given = torch.stack([running_mean, running_var])
    elif statistics is not None:
        kinds, given = _given(kinds, statistics, weights, first.shape[1])
    op = twin.mixed_op_sum if _by_twin(first) else torch.ops.autoreid_fast.mixed_op_sum
    if sync and batch and any(normalized) and current_shard().processes > 1:
        own = statistics or [None] * len(candidates)
        total, found = sync_mixed_op_sum(op, candidates, weights, normalized, own, eps)
        if training and running_mean is not None and running_var is not None:
            found.move(running_mean, running_var, momentum)
        return total
    total, used = op(list(candidates), weights, kinds, given, eps)
    if training and running_mean is not None:
        assert running_var is not None
        count = first.numel() // first.shape[1]
        with torch.no_grad():
            unbiased = used[1] * (count / max(count - 1, 1))
            torch._foreach_lerp_((running_mean, running_var), (used[0], unbiased), momentum)
    return total


def _by_twin(first: Tensor) -> bool:
    return contract.reference_forced() or (first.dtype == torch.float64 and first.is_cuda)


def _given(
    kinds: list[int], statistics: Sequence[Tensor | None], weights: Tensor, channels: int
) -> tuple[list[int], Tensor | None]:
    """The kinds with GIVEN for those that have statistics, and these as (2, K, C)."""
    if len(statistics) != len(kinds):
        raise AutoReIDError(f"mixed_op_sum: {len(statistics)} statistics for {len(kinds)} candidates")
    for k, each in enumerate(statistics):
        if each is not None:
            reason = "the mean and the biased variance of a channel"
            shape = (2, channels)
            require(f"mixed_op_sum: statistics[{k}]", each, shape, weights.dtype, weights.device, reason)
    use = [kind == twin.BATCH and each is not None for kind, each in zip(kinds, statistics, strict=True)]
    if not any(use):
        return kinds, None
    kinds = [twin.GIVEN if flag else kind for kind, flag in zip(kinds, use, strict=True)]
    if len(statistics) == 1:
        assert statistics[0] is not None
        return kinds, statistics[0].detach().unsqueeze(1)  # a view: one launch less for each edge of a search
    none = weights.new_zeros((2, channels))
    return kinds, torch.stack([none if each is None else each.detach() for each in statistics], 1)


def _check(candidates: Sequence[Tensor], weights: Tensor, normalized: Sequence[bool]) -> None:
    if not 1 <= len(candidates) <= MAX_CANDIDATES:
        raise AutoReIDError(f"mixed_op_sum: {len(candidates)} candidates, not 1 to {MAX_CANDIDATES}")
    first = candidates[0]
    if first.ndim != 4 or first.numel() == 0:
        raise AutoReIDError(
            f"mixed_op_sum: candidates[0] has shape {tuple(first.shape)}; expected (N, C, H, W) without a 0"
        )
    if first.dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        raise AutoReIDError(f"mixed_op_sum: candidates are {first.dtype}; expected a floating type")
    if first.numel() // first.shape[1] > MAX_POSITIONS:
        raise AutoReIDError(
            f"mixed_op_sum: candidates of shape {tuple(first.shape)} have more than {MAX_POSITIONS} values a "
            "channel: split the batch"
        )
    for k, z in enumerate(candidates):
        if (z.shape, z.dtype, z.device) != (first.shape, first.dtype, first.device):
            raise AutoReIDError(
                f"mixed_op_sum: candidates[{k}] is {tuple(z.shape)} {z.dtype} {z.device}, candidates[0] is "
                f"{tuple(first.shape)} {first.dtype} {first.device}"
            )
    if weights.shape != (len(candidates),) or not weights.is_floating_point():
        raise AutoReIDError(
            f"mixed_op_sum: weights are {tuple(weights.shape)} {weights.dtype}; expected one number a "
            f"candidate, ({len(candidates)},) for {len(candidates)} candidates"
        )
    if weights.device != first.device:
        raise AutoReIDError(f"mixed_op_sum: weights are on {weights.device}, candidates on {first.device}")
    if len(normalized) != len(candidates):
        raise AutoReIDError(
            f"mixed_op_sum: normalized has {len(normalized)} flags for {len(candidates)} candidates"
        )


def _check_running(
    mean: Tensor | None, variance: Tensor | None, candidates: Sequence[Tensor], weights: Tensor
) -> None:
    if (mean is None) != (variance is None):
        raise AutoReIDError("mixed_op_sum: running_mean and running_var go together: give both or neither")
    shape = (len(candidates), candidates[0].shape[1])
    for name, each in (("running_mean", mean), ("running_var", variance)):
        if each is not None:
            require(f"mixed_op_sum: {name}", each, shape, weights.dtype, weights.device)


def _fake(
    candidates: list[Tensor], weights: Tensor, kinds: list[int], statistics: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    first = candidates[0]
    return (
        first.new_empty(first.shape).contiguous(memory_format=twin.memory_format(candidates[0])),
        weights.new_empty((2, len(candidates), first.shape[1])),
    )


def _fake_backward(
    grad: Tensor,
    candidates: list[Tensor],
    weights: Tensor,
    kinds: list[int],
    statistics: Tensor,
    eps: float,
    wanted: list[int],
) -> tuple[list[Tensor], Tensor]:
    layout = twin.memory_format(candidates[0])
    grads = [candidates[k].new_empty(grad.shape).contiguous(memory_format=layout) for k in wanted]
    return grads, weights.new_empty(weights.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    candidates, weights, ctx.kinds, _, ctx.eps = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # no zeros for the statistics
    ctx.save_for_backward(*candidates, weights, output[1])


def _backward(ctx: Any, grad: Tensor | None, *rest: Any) -> tuple[Any, ...]:
    if grad is None:
        return [None] * len(ctx.needs_input_grad[0]), None, None, None, None
    *candidates, weights, statistics = ctx.saved_tensors
    wanted = [k for k, needs in enumerate(ctx.needs_input_grad[0]) if needs]
    grads, grad_weights = torch.ops.autoreid_fast.mixed_op_sum_backward(
        grad, candidates, weights, ctx.kinds, statistics, ctx.eps, wanted
    )
    of = dict(zip(wanted, grads, strict=True))
    return [of.get(k) for k in range(len(candidates))], grad_weights, None, None, None


def _no_second_derivative(ctx: Any, *rest: Any) -> None:
    raise AutoReIDError(
        "mixed_op_sum: the native op is differentiable once; use ops.backend('reference') for more"
    )


contract.define(
    "mixed_op_sum",
    "(Tensor[] candidates, Tensor weights, int[] kinds, Tensor? statistics, float eps) -> "
    "(Tensor total, Tensor used)",
    twin.mixed_op_sum,
    _fake,
)
contract.define(
    "mixed_op_sum_backward",
    "(Tensor grad, Tensor[] candidates, Tensor weights, int[] kinds, Tensor statistics, float eps, "
    "int[] wanted) -> (Tensor[] grads, Tensor grad_weights)",
    twin.mixed_op_sum_backward,
    _fake_backward,
)
triton_kernels.lay("mixed_op_sum", "mixed_op_sum", "mixed_op_sum_backward")
torch.library.register_autograd("autoreid_fast::mixed_op_sum", _backward, setup_context=_setup_context)
torch.library.register_autograd("autoreid_fast::mixed_op_sum_backward", _no_second_derivative)
