"""Lock of a run folder: one command at a time works on a run."""

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import cannot_write, write_json
from autoreid_fast.schema import Record, read_json

logger = logging.getLogger("autoreid_fast")

LOCK, OWNER = ".lock", ".owner.json"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class _Owner(Record):
    """Process that holds a lock, for the message to others."""

    host: str
    pid: int
    since: str


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of ``folder`` inside the block.

    The kernel frees the lock of a process that has ended, however it ended, on NFS across machines, too.
    Where a file system has no locks, a warning says so.

    Raises:
        AutoReIDError: another process holds it, or the folder cannot be written.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise AutoReIDError(f"{folder}: in use by {_owner(folder)}; wait until it ends, or stop it") from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise cannot_write(folder, error) from None
        logger.warning("%s: its file system has no locks: do not run two commands on it at once", folder)
    try:
        since = f"{datetime.now():%Y-%m-%d %H:%M:%S}"
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": since}
        with suppress(AutoReIDError, OSError):  # a full disk; the lock holds without it
            write_json(folder / OWNER, owner)
        yield
    finally:
        with suppress(OSError):
            (folder / OWNER).unlink(missing_ok=True)
        lock.release()


def _owner(folder: Path) -> str:
    try:
        owner = read_json(folder / OWNER, _Owner)
    except AutoReIDError:  # it has only just taken the lock
        return "another process"
    return f"process {owner.pid} on {owner.host} since {owner.since}"
