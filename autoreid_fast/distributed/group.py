"""One run in several processes, as `torchrun` starts them: its joint batch, its one voice, its one end."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as distributed
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from autoreid_fast.distributed.heartbeat import Pulse
from autoreid_fast.distributed.processes import (
    from_every_process,
    is_main,
    lost,
    share,
    sum_over_processes,
    working_alone,
)
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.stopping import InterruptedRun

Result = TypeVar("Result")

TIMEOUT = timedelta(seconds=60)
"""How long a process waits for the others in a step: longer, and one of them is lost."""
PATIENCE = timedelta(hours=12)
"""How long it waits for what one process does for all, such as decoding a data set, while that one lives."""
_FAILED = "autoreid_fast/failed"

_pulse: Pulse | None = None


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


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of ``values`` over the processes, in place."""
    return sum_over_processes(values).div_(share().processes)


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
