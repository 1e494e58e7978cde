"""Training in several processes as if in one: the joint batch, averaged gradients, shared statistics."""

from collections.abc import Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from autoreid_fast.distributed.collectives import gather_rows, mean_over_processes, sum_over_processes
from autoreid_fast.distributed.processes import current_shard, is_main
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.models.heads.embedding import ReIDOutput
from autoreid_fast.models.sync import sync_layers
from autoreid_fast.training.config import BatchConfig, DistributedConfig

Gradient = TypeVar("Gradient", bound=Tensor | None)


def check_divisible(name: str, size: int) -> None:
    """Check that a batch of ``size``, called ``name`` in the config, divides evenly among the processes.

    Raises:
        AutoReIDError: it does not.
    """
    processes = current_shard().processes
    if size % processes:
        raise AutoReIDError(
            f"{name} is {size}, which is not divisible by the {processes} processes of this run: make it a "
            f"multiple of {processes}"
        )


def check_batch(batch: BatchConfig, config: DistributedConfig) -> None:
    """Check that the processes can share a batch, each taking whole identities.

    Raises:
        AutoReIDError: they cannot.
    """
    check_divisible("batch.identities", batch.identities)
    if batch.identities == current_shard().processes > 1 and not config.gather:
        raise AutoReIDError(
            f"batch.identities is {batch.identities}, one per process, and distributed.gather is off: no "
            "process has two identities to compare; use at least "
            f"{2 * batch.identities}, or set distributed.gather"
        )


def join_model(model: nn.Module, config: DistributedConfig) -> None:
    """Copy the main process's parameters and buffers to all, and make batch norms share their statistics."""
    if current_shard().processes == 1:
        return
    for tensor in (*model.parameters(), *model.buffers()):
        # a sum with zeros, not a broadcast: one collective that reports its errors is enough
        sum_over_processes(tensor.detach() if is_main() else tensor.detach().zero_())
    sync_layers(model, config.sync_bn)


def average_gradients(gradients: Sequence[Gradient]) -> list[Gradient]:
    """Return the means of ``gradients`` over the processes, computed by one collective.

    None stands for a parameter that does not contribute to the loss, the same ones in every process.
    """
    present = [gradient for gradient in gradients if gradient is not None]
    if current_shard().processes == 1 or not present:
        return list(gradients)
    flat = mean_over_processes(torch.cat([gradient.flatten() for gradient in present]))
    parts = iter(flat.split([gradient.numel() for gradient in present]))
    means = [
        None if gradient is None else torch.empty_like(gradient).copy_(next(parts).view(gradient.shape))
        for gradient in gradients
    ]
    return cast(list[Gradient], means)


def average_statistics(model: nn.Module, config: DistributedConfig) -> None:
    """Average the running statistics of processes that do not share batch statistics."""
    if current_shard().processes > 1 and not config.sync_bn:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                mean_over_processes(buffer)


def joint_batch(
    output: ReIDOutput, labels: Tensor, config: DistributedConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Return features f, logits h and labels for the loss: those of all processes if ``config.gather``."""
    if not config.gather:
        return output.feature, output.logits, labels
    return gather_rows(output.feature), gather_rows(output.logits), gather_rows(labels)
