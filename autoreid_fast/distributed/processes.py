"""The processes of one run under torch.distributed, and the shard of the work that each one does."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch.distributed as distributed

from autoreid_fast.errors import AutoReIDError


class LostProcessError(AutoReIDError):
    """Another process of the run has ended, or does not answer within the time limit."""


class Shard(NamedTuple):
    """One process's part of the work: contiguous rows, in the order of the processes.

    Attributes:
        process: Number of this process, from 0.
        processes: Number of processes in the run.

    Examples:
        >>> from autoreid_fast.distributed.processes import Shard
        >>> list(range(10))[Shard(process=1, processes=3).rows(10)]
        [3, 4, 5]
    """

    process: int = 0
    processes: int = 1

    def rows(self, count: int) -> slice:
        """Select this process's part of ``count`` rows; the sizes of the parts differ by at most one."""
        start, stop = (count * process // self.processes for process in (self.process, self.process + 1))
        return slice(start, stop)


WHOLE = Shard()
"""The only shard of a run in one process."""

_single = False


@contextmanager
def as_single_process() -> Iterator[None]:
    """Make this process act as the only one inside the block: no collective runs."""
    global _single
    before, _single = _single, True
    try:
        yield
    finally:
        _single = before


def current_shard() -> Shard:
    """Return this process's shard; `WHOLE` without a process group."""
    if not _single and distributed.is_available() and distributed.is_initialized():
        return Shard(distributed.get_rank(), distributed.get_world_size())
    return WHOLE


def is_main() -> bool:
    """Whether this is process 0, which logs and writes files."""
    return current_shard().process == 0


def lost_process(error: RuntimeError | str) -> LostProcessError:
    """Make the error to raise when a collective failed with ``error``."""
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return LostProcessError(
        f"another process of this run has ended or hangs ({reason}); its own error message says why. Start "
        "all processes again: --resume continues from the last checkpoint"
    )
