"""`part_attention` with the batch statistics of all processes: plain torch around `sync_batch_norm`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from autoreid_fast.ops.batch_norm import sync_batch_norm
from autoreid_fast.ops.batch_norm.statistics import BatchStatistics
from autoreid_fast.ops.part_attention import reference


def sync_part_attention(
    x: Tensor, parameters: Sequence[Tensor], affine: Tensor | None, relu: bool, eps: float
) -> tuple[Tensor, BatchStatistics]:
    """Strip bias of `ops.part_attention` over the images of all processes, and the (E, M, h) statistics.

    One collective forward and one backward, over the part vectors only; it would interrupt the op's
    kernel. Gradients as in `sync_batch_norm`. Arguments other than x are of the accumulation dtype.
    """
    project_weight, project_bias, key_weight, key_bias, query_weight, query_bias, fuse_weight = parameters
    with torch.autocast(x.device.type, enabled=False):  # the op ignores autocast, too
        means = reference.strip_means(x, project_weight.dtype)
        projected = reference.project(means, project_weight, project_bias).transpose(0, 1)  # (N, E, M, h)
        normalized, merged = sync_batch_norm(projected.flatten(1), None, None, eps)
        f = reference.body_vectors(normalized.view(projected.shape).transpose(0, 1), affine)
        strip_bias = reference.attend(f, key_weight, key_bias, query_weight, query_bias, fuse_weight, relu)
    mean, variance = (values.view(projected.shape[1:]) for values in (merged.mean, merged.variance))
    return strip_bias.to(x.dtype).contiguous(), BatchStatistics(mean, variance, merged.size)
