"""The part-aware module of Sec. 3.3 for all edges of one source, as far as the bias vector of each strip."""

import torch
from torch import Tensor

from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops.arguments import accumulation_dtype
from autoreid_fast.ops.batch_norm.statistics import update_running
from autoreid_fast.ops.contract import run
from autoreid_fast.ops.part_attention.spec import ARGUMENTS, PART_ATTENTION
from autoreid_fast.ops.part_attention.strips import PARTS
from autoreid_fast.ops.part_attention.sync import sync_part_attention

__all__ = ["PARTS", "part_attention"]


def part_attention(
    x: Tensor,
    project_weight: Tensor,
    project_bias: Tensor,
    key_weight: Tensor,
    key_bias: Tensor,
    query_weight: Tensor,
    query_bias: Tensor,
    fuse_weight: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    affine: Tensor | None = None,
    *,
    relu: bool = False,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    sync: bool = False,
) -> Tensor:
    """Contribution of the part vectors of E part-aware modules on one x to their fusing 1x1 convolutions.

    The fusing convolution of a module reads cat(x, repeat(part)), so it is W1 x + (W2 part)[strip]: this op
    computes the second term, without the repeated tensor and the concatenation. For each edge, with f, K, Q
    and part as matrices of one row per strip:

        v_m = project_weight_m relu(mean of strip m) + project_bias_m,   f = BN(v) over the N images
        K = f key_weight^T + key_bias,   Q = f query_weight^T + query_bias
        A = softmax of each row of K Q^T,   part = A f,   strip_bias = part fuse_weight^T

    Strip m of the M = 4 strips has the rows floor(m H / M) .. floor((m + 1) H / M) - 1.
    csrc/part_attention/part_attention.h has the gradients.

    Args:
        x: (N, C, H, W), H >= 4, in float32, float16, bfloat16 or float64 (which on CUDA uses the
            reference). `torch.channels_last` tensors are read in place, others are copied; the CPU
            kernel also copies float16 and bfloat16. Sums are in float32 (float64 for float64), strip means
            on the CPU in float64.
        project_weight: (E, M, h, C), for each edge and strip. This and all below: any floating dtype.
        project_bias: (E, M, h).
        key_weight: (E, h, h), as in `nn.Linear`.
        key_bias: (E, h).
        query_weight: (E, h, h).
        query_bias: (E, h).
        fuse_weight: (E, D, h): W2, the columns of the fusing convolution that read the part vector.
        running_mean: (E, M, h), any floating dtype, updated in place in training.
        running_var: of the same shape and dtype; unbiased, as in `nn.BatchNorm1d`. Both or neither.
        affine: (2, E, M, h), scale and shift of the batch norm; None in the supernet, whose norms have none.
        relu: apply W2 to relu(part), as the FactorizedReduce that fuses at stride 2 does.
        training: normalise by batch statistics, and update the running ones; otherwise by the running
            ones, which are constants, or by batch statistics if there are none.
        momentum: weight of the batch in the running statistics.
        eps: added to the variances.
        sync: use batch statistics over the images of all processes of torch.distributed, as
            `sync_batch_norm` does.

    Returns:
        (E, N, M, D), in the dtype of x. Differentiable once with respect to x, the parameters and affine
        (more often under `ops.backend("reference")`); the gradients of the parameters and affine are
        computed all or none, that of x only if needed; it is channels_last.

    Raises:
        AutoReIDError: a wrong shape, dtype or device; H < 4; one image where batch statistics are needed.

    Examples:
        >>> import torch
        >>> from autoreid_fast import ops
        >>> x, (E, M, h, C, D) = torch.randn(16, 30, 24, 8), (2, 4, 10, 30, 30)
        >>> linear = torch.randn(E, h, h), torch.zeros(E, h)
        >>> project = torch.randn(E, M, h, C), torch.zeros(E, M, h)
        >>> ops.part_attention(x, *project, *linear, *linear, torch.randn(E, D, h)).shape
        torch.Size([2, 16, 4, 30])
    """
    ARGUMENTS.check(
        x=x,
        project_weight=project_weight,
        project_bias=project_bias,
        key_weight=key_weight,
        key_bias=key_bias,
        query_weight=query_weight,
        query_bias=query_bias,
        fuse_weight=fuse_weight,
        running_mean=running_mean,
        running_var=running_var,
        affine=affine,
        relu=relu,
        training=training,
        momentum=momentum,
        eps=eps,
        sync=sync,
    )
    images = x.shape[0]
    by_batch = training or running_mean is None
    if by_batch and images < 2:
        raise AutoReIDError(
            f"part_attention: `x` has shape {tuple(x.shape)}; expected at least 2 images for batch "
            "statistics: use more images, or running statistics"
        )
    dtype = accumulation_dtype(x)
    parameters = [
        parameter.to(dtype)
        for parameter in (
            project_weight, project_bias, key_weight, key_bias, query_weight, query_bias, fuse_weight
        )
    ]  # fmt: skip
    scale_and_shift = None if affine is None else affine.to(dtype)
    if sync and by_batch and current_shard().processes > 1:
        strip_bias, merged = sync_part_attention(x, parameters, scale_and_shift, relu, eps)
        if training and running_mean is not None and running_var is not None:
            merged.update_running(running_mean, running_var, momentum)
        return strip_bias
    statistics = None
    if not by_batch:
        assert running_mean is not None and running_var is not None
        statistics = torch.stack([running_mean, running_var]).to(dtype)
    strip_bias, _, _, norm_statistics = run(
        PART_ATTENTION, x, *parameters, scale_and_shift, statistics, relu, eps
    )
    if training and running_mean is not None and running_var is not None:
        update_running(running_mean, running_var, norm_statistics, images, momentum)
    return strip_bias
