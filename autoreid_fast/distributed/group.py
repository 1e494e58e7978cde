"""Process group of one run under `torchrun`: start, work done by the main process, errors, shutdown."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as distributed
from torch.distributed.rendezvous import rendezvous

from autoreid_fast.distributed.collectives import broadcast_from_main, max_over_processes
from autoreid_fast.distributed.heartbeat import Heartbeat
from autoreid_fast.distributed.processes import as_single_process, current_shard, is_main
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.stopping import InterruptedRun

Result = TypeVar("Result")

TIMEOUT = timedelta(seconds=60)
"""Longest wait for another process inside a step; a process that takes longer counts as lost."""
LONG_TIMEOUT = timedelta(hours=12)
"""Longest wait for work that one process does for all, such as decoding a data set."""
_FAILED = "autoreid_fast/failed"

_heartbeat: Heartbeat | None = None


@contextmanager
def joined_processes() -> Iterator[None]:
    """Join the processes that `torchrun` started into one run; no effect in a single process or when nested.

    Collectives use NCCL on GPUs and gloo on CPUs; each process has its own GPU. Only the main process logs.
    An error that is the same in all processes is raised in the main process; the others exit silently.

    Raises:
        AutoReIDError: raised by the block; in other processes than the main one its message names the
            process.

    Examples:
        >>> from autoreid_fast.distributed.group import joined_processes
        >>> with joined_processes():  # a script started by torchrun --nproc-per-node 2 script.py
        ...     pass  # search(...) or train(...)
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield
        return
    global _heartbeat
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    store, process, processes = next(rendezvous("env://"))
    distributed.init_process_group(store=store, rank=process, world_size=processes, timeout=TIMEOUT)
    _heartbeat = Heartbeat(store, current_shard())
    try:
        yield
        wait_for_all()
    except Exception as error:
        # the group is not destroyed: that would wait for processes that may no longer answer
        if process == 0:
            store.set(_FAILED, str(error))
            raise
        if _error_of_main(store) == str(error):
            raise SystemExit(2) from None
        if isinstance(error, AutoReIDError):
            raise AutoReIDError(f"process {process} of {processes}: {error}") from None
        raise
    except InterruptedRun as interrupt:
        if process == 0:
            raise
        raise SystemExit(interrupt.status) from None
    _heartbeat.stop()
    _heartbeat = None
    distributed.destroy_process_group()


def _error_of_main(store: Any) -> str | None:
    """The message of the error that ended the main process, if it reports one within seconds."""
    messages: list[str] = []

    def read() -> None:
        with suppress(RuntimeError):  # no error within seconds, or the store ended with the main process
            store.wait([_FAILED], timedelta(seconds=3))
            messages.append(store.get(_FAILED).decode())

    reader = threading.Thread(target=read, daemon=True)  # a store that hangs ignores the timeout
    reader.start()
    reader.join(4)
    return messages[0] if messages else None


def on_main(function: Callable[[], Result]) -> Result:
    """Call ``function`` in the main process only, and return its result (picklable) in every process.

    The main process runs it as a single process; the others wait for as long as it takes. If it raises, every
    process raises that error.

    Raises:
        LostProcessError: a process is gone or hangs.
    """
    if current_shard().processes == 1:
        return function()
    result: Any = None
    error: BaseException | None = None
    if is_main():
        try:
            with as_single_process():
                result = function()
        except (Exception, SystemExit) as raised:
            error = raised
    # the main process comes last: the others have nothing to do before they wait
    _barrier(TIMEOUT if is_main() else LONG_TIMEOUT)
    result, error = broadcast_from_main([result, error])
    if error is not None:
        raise error
    return result


def main_first(function: Callable[[], Result]) -> Result:
    """Call ``function`` in every process, in the main one first, and return when all of them are done.

    Raises:
        LostProcessError: a process is gone or hangs.
    """
    results: list[Result] = []
    if current_shard().processes > 1:
        on_main(lambda: results.append(function()))
    if not results:
        results.append(function())
    wait_for_all()
    return results[0]


def wait_for_all() -> None:
    """Wait until every process has called this, for as long as they show signs of life.

    Raises:
        LostProcessError: a process is gone or hangs.
    """
    if current_shard().processes > 1:
        _barrier(LONG_TIMEOUT)
        # the process that holds the store may leave only when all others have seen everyone arrive
        max_over_processes(0)


def _barrier(limit: timedelta) -> None:
    if _heartbeat is not None:  # a group that joined_processes did not make has a timeout of its own
        _heartbeat.barrier(limit)
