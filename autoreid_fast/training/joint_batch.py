"""Training in several processes: their joint batch, averaged gradients and shared statistics."""

from collections.abc import Sequence
from typing import TypeVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from autoreid_fast.distributed.collectives import gather_rows, mean_over_processes, sum_over_processes
from autoreid_fast.distributed.processes import current_shard, is_main
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.models.heads.embedding import ReIDOutput
from autoreid_fast.models.sync import sync_layers
from autoreid_fast.schema import Config

Gradient = TypeVar("Gradient", bound=Tensor | None)


class DistributedConfig(Config):
    """What the processes of `torchrun` share; in one process nothing. Docs: docs/guide/distributed.md."""

    sync_bn: bool = Field(
        True, description="Batch statistics over the images of all processes; off: each process its own."
    )
    gather: bool = Field(
        True,
        description="The loss sees the images of all processes, so that batch-hard mines among them; off: "
        "each process mines among its own identities.",
    )


def check_share_of_batch(identities: int, config: DistributedConfig) -> None:
    """Whether the processes can share a batch of ``identities`` identities, each with all of its images.

    Raises:
        AutoReIDError: they cannot.
    """
    processes = current_shard().processes
    if identities % processes:
        raise AutoReIDError(
            f"batch.identities is {identities}, which {processes} processes cannot share evenly: make it a "
            f"multiple of {processes}"
        )
    if identities == processes > 1 and not config.gather:
        raise AutoReIDError(
            f"batch.identities is {identities}, one a process, and distributed.gather is off: a process's "
            "batch has no two identities to compare"
        )


def join_model(model: nn.Module, config: DistributedConfig) -> None:
    """Give every process the main one's parameters and buffers, and layers that see the joint batch."""
    if current_shard().processes == 1:
        return
    for tensor in (*model.parameters(), *model.buffers()):
        # not a broadcast: one collective is enough to know, and to have its errors said well
        sum_over_processes(tensor.detach() if is_main() else tensor.detach().zero_())
    sync_layers(model, config.sync_bn)


def average_gradients(gradients: Sequence[Gradient]) -> list[Gradient]:
    """The means of ``gradients`` over the processes, by one collective.

    None, for a parameter out of the loss's reach, must stand at the same places in every process.
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


def average_buffers(model: nn.Module) -> None:
    """Make the running statistics of processes without sync_bn one: their means."""
    if current_shard().processes > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                mean_over_processes(buffer)


def joint_batch(
    output: ReIDOutput, labels: Tensor, config: DistributedConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Features f, logits h and labels that the loss sees: with ``gather`` those of all processes."""
    seen = (output.feature, output.logits, labels)
    return (gather_rows(seen[0]), gather_rows(seen[1]), gather_rows(seen[2])) if config.gather else seen
