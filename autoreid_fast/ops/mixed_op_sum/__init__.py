"""The mixture of Eq. (2) for a whole node: the weighted sum of all its normalised candidates, in one op."""

from collections.abc import Sequence

import torch
from torch import Tensor

from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops.arguments import accumulation_dtype
from autoreid_fast.ops.batch_norm.statistics import update_running
from autoreid_fast.ops.contract import implementation
from autoreid_fast.ops.mixed_op_sum.kinds import BATCH, FIXED, GIVEN, PLAIN
from autoreid_fast.ops.mixed_op_sum.spec import ARGUMENTS, MAX_CANDIDATES, MIXED_OP_SUM
from autoreid_fast.ops.mixed_op_sum.sync import sync_mixed_op_sum

__all__ = ["MAX_CANDIDATES", "mixed_op_sum"]


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

    BN has no affine part: (z - mean) / sqrt(var + eps) per channel of each candidate, as in
    `nn.BatchNorm2d(affine=False)`. For the backward pass only the candidates and (2, K, C) statistics are
    kept.

    Args:
        candidates: K tensors (N, C, H, W) of one shape, dtype and device; K from 1 to 64. float32, float16,
            bfloat16, or float64 (which on CUDA uses the reference). The result has the layout of the
            first one, contiguous or channels_last; candidates in another layout are copied. Half types
            are computed in float32 (on the CPU from a copy).
        weights: (K,), any floating dtype.
        normalized: K flags: whether the candidate is followed by BN; False gives w_k z_k.
        running_mean: (K, C), any floating dtype, one row per candidate; rows of candidates without BN are
            not used.
        running_var: of the same shape and dtype; unbiased, as in `nn.BatchNorm2d`. Both or neither.
        training: normalise by batch statistics, and update the running ones in place; otherwise by the
            running ones, which are constants, or by batch statistics if there are none.
        momentum: weight of the batch in the running statistics.
        eps: added to the variances.
        statistics: for each candidate None, or its (2, C) batch mean and biased variance if its producer
            has computed them, which saves one read. Gradients flow as if they were computed here.
        sync: use batch statistics over the images of all processes of torch.distributed, as
            `sync_batch_norm` does; `statistics` are those of this process.

    Returns:
        (N, C, H, W), dtype and memory format of the first candidate. Differentiable once with respect to
        candidates and weights (more often under `ops.backend("reference")`).

    Raises:
        AutoReIDError: a wrong shape, dtype, device or count; one value per channel, which has no variance.

    Examples:
        >>> import torch
        >>> from autoreid_fast import ops
        >>> candidates = [torch.randn(16, 32, 24, 8) for _ in range(3)]
        >>> weights = torch.softmax(torch.zeros(3), 0).requires_grad_()
        >>> y = ops.mixed_op_sum(candidates, weights, normalized=[True, True, False])
        >>> y.shape
        torch.Size([16, 32, 24, 8])
        >>> y.square().mean().backward()
    """
    ARGUMENTS.check(
        candidates=candidates,
        weights=weights,
        normalized=normalized,
        running_mean=running_mean,
        running_var=running_var,
        statistics=statistics,
        training=training,
        momentum=momentum,
        eps=eps,
        sync=sync,
    )
    first = candidates[0]
    count = first.numel() // first.shape[1]
    by_batch = training or running_mean is None
    if by_batch and count == 1 and any(normalized):
        raise AutoReIDError(
            f"mixed_op_sum: `candidates` have shape {tuple(first.shape)}; expected more than one value per "
            "channel for batch statistics: use more images, or running statistics"
        )
    weights = weights.to(accumulation_dtype(first))
    op = implementation(MIXED_OP_SUM, first)
    if sync and by_batch and any(normalized) and current_shard().processes > 1:
        total, merged = sync_mixed_op_sum(op, candidates, weights, normalized, statistics, eps)
        if training and running_mean is not None and running_var is not None:
            merged.update_running(running_mean, running_var, momentum)
        return total
    kinds = [(BATCH if by_batch else FIXED) if flag else PLAIN for flag in normalized]
    known = None
    if not by_batch:
        assert running_mean is not None and running_var is not None
        known = torch.stack([running_mean, running_var]).to(weights.dtype)
    elif statistics is not None:
        kinds, known = _with_statistics(kinds, statistics, weights)
    total, used = op(list(candidates), weights, kinds, known, eps)
    if training and running_mean is not None and running_var is not None:
        update_running(running_mean, running_var, used, count, momentum)
    return total


def _with_statistics(
    kinds: list[int], statistics: Sequence[Tensor | None], weights: Tensor
) -> tuple[list[int], Tensor | None]:
    """Kinds with GIVEN for the normalised candidates that have statistics, and these as (2, K, C)."""
    kinds = [
        GIVEN if kind == BATCH and one is not None else kind
        for kind, one in zip(kinds, statistics, strict=True)
    ]
    if GIVEN not in kinds:
        return kinds, None
    if len(statistics) == 1:
        assert statistics[0] is not None
        return kinds, statistics[0].detach().unsqueeze(1)  # a view saves one launch per edge of a search
    channels = next(one.shape[1] for one in statistics if one is not None)
    unused = weights.new_zeros((2, channels))
    return kinds, torch.stack([unused if one is None else one.detach() for one in statistics], 1)
