"""The processes that share a run under torch.distributed; without a group of them, one process alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch.distributed as distributed
from torch import Tensor

from autoreid_fast.errors import AutoReIDError


class LostProcessError(AutoReIDError):
    """Another process of the run has ended, or does not answer within the group's timeout."""


class Share(NamedTuple):
    """One of ``processes`` processes, by its number: what is shared is cut in contiguous parts, in order."""

    process: int = 0
    processes: int = 1

    def rows(self, count: int) -> slice:
        """This process's part of ``count`` rows; the parts' sizes differ by one at most."""
        start, stop = (count * which // self.processes for which in (self.process, self.process + 1))
        return slice(start, stop)


ALONE = Share()

_working_alone = False


@contextmanager
def working_alone() -> Iterator[None]:
    """Let this process act, while the block runs, as if there were no others: no collective."""
    global _working_alone
    before, _working_alone = _working_alone, True
    try:
        yield
    finally:
        _working_alone = before


def share() -> Share:
    """This process among those of the run."""
    if not _working_alone and distributed.is_available() and distributed.is_initialized():
        return Share(distributed.get_rank(), distributed.get_world_size())
    return ALONE


def is_main() -> bool:
    """Whether this is the process that logs and writes files."""
    return share().process == 0


def sum_over_processes(values: Tensor) -> Tensor:
    """Replace ``values``, of one shape and dtype in every process, by their sum; returns them.

    Every process gets the same bits. All of them must call this, in the same order.

    Raises:
        LostProcessError: a process is gone, or silent for longer than the group's timeout.
    """
    if share().processes > 1:
        try:
            distributed.all_reduce(values)
        except RuntimeError as error:
            raise lost(error) from None
    return values


def from_every_process(value: Any) -> list[Any]:
    """Every process's ``value``, in their order, in every process; the values must be picklable.

    Raises:
        LostProcessError: as ``sum_over_processes``.
    """
    values = [value] * share().processes
    if len(values) > 1:
        try:
            distributed.all_gather_object(values, value)
        except RuntimeError as error:
            raise lost(error) from None
    return values


def lost(error: RuntimeError | str) -> LostProcessError:
    """What a user is told of a collective that failed with ``error``."""
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return LostProcessError(
        f"another process of this run has ended or hangs ({reason}); its own message says why. Start all of "
        "them again: with --resume the run goes on from its last checkpoint"
    )
