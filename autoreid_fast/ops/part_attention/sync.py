"""`part_attention` with the batch statistics of all processes: plain torch around `sync_batch_norm`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from autoreid_fast.ops.batch_norm import BatchStatistics, sync_batch_norm
from autoreid_fast.ops.part_attention import reference as twin


def sync_part_attention(
    x: Tensor, parameters: Sequence[Tensor], affine: Tensor | None, relu: bool, eps: float
) -> tuple[Tensor, BatchStatistics]:
    """bias as `ops.part_attention` has it, over the images of all processes, and the (E, M, h) statistics.

    One collective forward and one backward, of the part vectors alone: the op's kernel would stop in its
    middle for them. Gradients as `sync_batch_norm` has them. Arguments of the accumulation dtype, but x.
    """
    project_weight, project_bias, key_weight, key_bias, query_weight, query_bias, fuse_weight = parameters
    with torch.autocast(x.device.type, enabled=False):  # the op knows of none either
        projected = twin.project(twin.strip_means(x, project_weight.dtype), project_weight, project_bias)
        rows = projected.transpose(0, 1)  # (N, E, M, h)
        normalized, found = sync_batch_norm(rows.flatten(1), None, None, eps)
        mean, variance = (each.view(rows.shape[1:]) for each in (found.mean, found.variance))
        f = twin.scaled(normalized.view(rows.shape).transpose(0, 1), affine)
        bias = twin.attend(f, key_weight, key_bias, query_weight, query_bias, fuse_weight, relu)
    return bias.to(x.dtype).contiguous(), BatchStatistics(mean, variance, found.number)
