"""Collectives over the processes of a run; in a single process each one returns its argument.

Every process must make the same calls in the same order. A process that is gone, or silent for longer than
the time limit of the group, raises `LostProcessError` in the others.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor

from autoreid_fast.distributed.processes import current_shard, lost_process
from autoreid_fast.errors import AutoReIDError


@contextmanager
def _errors_name_lost_process() -> Iterator[None]:
    """Turn the errors of torch's collectives into `LostProcessError`."""
    try:
        yield
    except RuntimeError as error:
        raise lost_process(error) from None


def sum_over_processes(values: Tensor) -> Tensor:
    """Replace ``values`` in place by their sum over the processes, and return them.

    ``values`` must have the same shape and dtype in every process. All processes get the same bits.

    Raises:
        LostProcessError: a process is gone or silent.
    """
    if current_shard().processes > 1:
        with _errors_name_lost_process():
            distributed.all_reduce(values)
    return values


def mean_over_processes(values: Tensor) -> Tensor:
    """Replace ``values`` in place by their mean over the processes, and return them.

    Raises:
        LostProcessError: a process is gone or silent.
    """
    return sum_over_processes(values).div_(current_shard().processes)


def max_over_processes(value: int) -> int:
    """Return the largest ``value`` of all processes, without waiting for a GPU.

    Raises:
        LostProcessError: a process is gone or silent.
    """
    if current_shard().processes == 1:
        return value
    largest = torch.tensor(value)
    with _errors_name_lost_process():
        distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return int(largest)


def gather_from_processes(value: Any) -> list[Any]:
    """Return every process's ``value`` (picklable), in the order of the processes.

    Raises:
        LostProcessError: a process is gone or silent.
    """
    values = [value] * current_shard().processes
    if len(values) > 1:
        with _errors_name_lost_process():
            distributed.all_gather_object(values, value)
    return values


def broadcast_from_main(values: list[Any]) -> list[Any]:
    """Replace ``values`` (picklable) in place by those of the main process, and return them.

    Raises:
        LostProcessError: a process is gone or silent.
    """
    with _errors_name_lost_process():
        distributed.broadcast_object_list(values, src=0)
    return values


def check_same(name: str, value: Any) -> None:
    """Check that ``value`` (picklable, short) is the same in all processes; ``name`` is for the message.

    Raises:
        AutoReIDError: it differs between processes.
    """
    values = gather_from_processes(value)
    for process, other in enumerate(values):
        if other != values[0]:
            raise AutoReIDError(
                f"process {process} has {name} {other!r} and process 0 has {values[0]!r}: every host must "
                "see the same data set, run folder and version of autoreid_fast"
            )


class _GatherRows(torch.autograd.Function):
    """Concatenate the rows of all processes.

    Every process computes the same loss from the result, so the backward pass exchanges no gradients.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        shard = current_shard()
        gathered = rows.new_zeros(shard.processes, *rows.shape)
        gathered[shard.process] = rows
        return sum_over_processes(gathered).flatten(0, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        shard = current_shard()
        return shard.processes * grad[shard.rows(len(grad))]


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenate the ``rows`` (N, ...) of all processes, in their order: (processes * N, ...).

    Differentiable. If every process computes the same loss from the result, the gradients of the parameters,
    averaged over the processes, are those of that loss.
    """
    return rows if current_shard().processes == 1 else _GatherRows.apply(rows)
