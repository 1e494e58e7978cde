"""One run in several processes, as `torchrun` starts them: its joint batch, its one voice, its one end."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as distributed
from pydantic import Field
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from autoreid_fast.engine.pulse import Pulse
from autoreid_fast.engine.stopping import InterruptedRun
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.models.head import ReIDOutput
from autoreid_fast.models.joint_batch import join_batches
from autoreid_fast.processes import (
    from_every_process,
    is_main,
    lost,
    share,
    sum_over_processes,
    working_alone,
)
from autoreid_fast.schema import Config

Result = TypeVar("Result")
Gradient = TypeVar("Gradient", bound=Tensor | None)

TIMEOUT = timedelta(seconds=60)
"""How long a process waits for the others in a step: longer, and one of them is lost."""
PATIENCE = timedelta(hours=12)
"""How long it waits for what one process does for all, such as decoding a data set, while that one lives."""
_FAILED = "autoreid_fast/failed"

_pulse: Pulse | None = None


class DistributedConfig(Config):
    """What the processes of `torchrun` share; in one process nothing. Docs: docs/distributed.md."""

    sync_bn: bool = Field(
        True, description="Batch statistics over the images of all processes; off: each process its own."
    )
    gather: bool = Field(
        True,
        description="The loss sees the images of all processes, so that batch-hard mines among them; off: "
        "each process mines among its own identities.",
    )


@contextmanager
def joined_processes() -> Iterator[None]:
    """Make the processes that `torchrun` started one run; nothing where there is one, or it was done before.

    Collectives go by NCCL on GPUs and by gloo on CPUs; each process has its own GPU. The main process alone
    logs (`progress.log_to_console`, `RunFolder.logging`). An error that all processes meet is raised in the
    main process and ends the others in silence.

    Raises:
        AutoReIDError: as the block does; in other processes than the main one with the process's number.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield
        return
    global _pulse
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    store, process, processes = next(rendezvous("env://"))
    distributed.init_process_group(store=store, rank=process, world_size=processes, timeout=TIMEOUT)
    _pulse = Pulse(store, share())
    try:
        yield
        wait_for_all()
    except Exception as error:  # the group is left to end with the process: its peers may no longer answer
        if process == 0:
            store.set(_FAILED, str(error))
            raise
        if _said_by_main(store) == str(error):
            raise SystemExit(2) from None
        if isinstance(error, AutoReIDError):
            raise AutoReIDError(f"process {process} of {processes}: {error}") from None
        raise
    except InterruptedRun as interrupt:
        if process == 0:
            raise
        raise SystemExit(interrupt.status) from None
    _pulse.end()
    _pulse = None
    distributed.destroy_process_group()


def _said_by_main(store: Any) -> str | None:
    """The error that ended the main process, if it said one within seconds."""
    said: list[str] = []

    def ask() -> None:
        with suppress(RuntimeError):  # nothing within seconds, or the store went with the main process
            store.wait([_FAILED], timedelta(seconds=3))
            said.append(store.get(_FAILED).decode())

    asking = threading.Thread(target=ask, daemon=True)  # a store that hangs does not answer no either
    asking.start()
    asking.join(4)
    return said[0] if said else None


def on_main(function: Callable[[], Result]) -> Result:
    """Call ``function`` in the main process alone; its result, or its error, is every process's.

    It works as if there were no others, who wait for as long as it takes. The result must be picklable.

    Raises:
        LostProcessError: as ``wait_for_all``.
    """
    if share().processes == 1:
        return function()
    outcome: list[Any] = [None, None]
    if is_main():
        try:
            with working_alone():
                outcome[0] = function()
        except (Exception, SystemExit) as error:
            outcome[1] = error
    _meet(TIMEOUT if is_main() else PATIENCE)  # the others have nothing to do before they come
    try:
        distributed.broadcast_object_list(outcome, src=0)
    except RuntimeError as error:
        raise lost(error) from None
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def main_first(function: Callable[[], Result]) -> Result:
    """Call ``function`` in every process, in the main one first, and go on when all of them have."""
    result: list[Result] = []
    if share().processes > 1:
        on_main(lambda: result.append(function()))
    if not result:
        result.append(function())
    wait_for_all()
    return result[0]


def highest_of_processes(value: int) -> int:
    """The highest of the processes' values, in each of them, without waiting for a GPU.

    Raises:
        LostProcessError: a process is gone, or silent for longer than the group's timeout.
    """
    if share().processes == 1:
        return value
    highest = torch.tensor(value)
    try:
        distributed.all_reduce(highest, distributed.ReduceOp.MAX)
    except RuntimeError as error:
        raise lost(error) from None
    return int(highest)


def wait_for_all() -> None:
    """Wait until every process is here, for as long as it takes, or until one shows no sign of life.

    Raises:
        LostProcessError: a process is gone, or hangs.
    """
    if share().processes > 1:
        _meet(PATIENCE)
        highest_of_processes(0)  # the one that keeps the store leaves when all have seen each other there


def _meet(limit: timedelta) -> None:
    if _pulse is not None:  # a group that joined_processes did not make has its own timeout
        _pulse.meet(limit)


def check_share_of_batch(identities: int, config: DistributedConfig) -> None:
    """Whether the processes can share a batch of ``identities`` identities, each with all of its images.

    Raises:
        AutoReIDError: they cannot.
    """
    processes = share().processes
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


def check_same(what: str, value: Any) -> None:
    """Whether all processes have this ``value``, which is picklable and short.

    Raises:
        AutoReIDError: they do not; ``what`` names it.
    """
    values = from_every_process(value)
    for process, other in enumerate(values):
        if other != values[0]:
            raise AutoReIDError(
                f"process {process} has {what} {other!r} and process 0 has {values[0]!r}: every host must "
                "see the same data set, run folder and version of autoreid_fast"
            )


def join_model(model: nn.Module, config: DistributedConfig) -> None:
    """Give every process the main one's parameters and buffers, and layers that see the joint batch."""
    if share().processes == 1:
        return
    for tensor in (*model.parameters(), *model.buffers()):
        # not a broadcast: one collective is enough to know, and to have its errors said well
        sum_over_processes(tensor.detach() if is_main() else tensor.detach().zero_())
    join_batches(model, config.sync_bn)


def average_gradients(gradients: Sequence[Gradient]) -> list[Gradient]:
    """The means of ``gradients`` over the processes, by one collective.

    None, for a parameter out of the loss's reach, must stand at the same places in every process.
    """
    present = [gradient for gradient in gradients if gradient is not None]
    if share().processes == 1 or not present:
        return list(gradients)
    flat = mean_over_processes(torch.cat([gradient.flatten() for gradient in present]))
    parts = iter(flat.split([gradient.numel() for gradient in present]))
    means = [
        None if gradient is None else torch.empty_like(gradient).copy_(next(parts).view(gradient.shape))
        for gradient in gradients
    ]
    return cast(list[Gradient], means)


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of ``values`` over the processes, in place."""
    return sum_over_processes(values).div_(share().processes)


def average_buffers(model: nn.Module) -> None:
    """Make the running statistics of processes without sync_bn one: their means."""
    if share().processes > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                mean_over_processes(buffer)


class _Gather(torch.autograd.Function):
    """Rows of all processes; every process goes on to compute the same, so that no gradient is exchanged."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        own = share()
        everyones = rows.new_zeros(own.processes, *rows.shape)
        everyones[own.process] = rows
        return sum_over_processes(everyones).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        own = share()
        return own.processes * grad[own.rows(len(grad))]


def gather(rows: Tensor) -> Tensor:
    """The rows (N, ...) of all processes, (processes * N, ...), in their order: those of the joint batch.

    Where every process computes one and the same loss of the result, the gradients that its parameters get
    are, averaged over the processes, those of that loss.
    """
    return rows if share().processes == 1 else _Gather.apply(rows)


def joint_batch(
    output: ReIDOutput, labels: Tensor, config: DistributedConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Features f, logits h and labels that the loss sees: with ``gather`` those of all processes."""
    seen = (output.feature, output.logits, labels)
    return (gather(seen[0]), gather(seen[1]), gather(seen[2])) if config.gather else seen
