"""Writing files so that a reader never sees half of one."""

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from autoreid_fast.errors import AutoReIDError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
UNWRITABLE = _NO_ROOM | {errno.EROFS}
"""The numbers of errors that only writing can have: a full or a read-only disk."""


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success flush it to disk and rename it to ``path``.

    A crash at any moment leaves either the old file or the new one, never a torn one, and maybe a temporary
    that the next writer of ``path`` clears away.

    Raises:
        AutoReIDError: the folder cannot be written to, or its disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(path)
        handle, temporary = _temporary_beside(path)
    except OSError as error:
        raise cannot_write(path, error) from None
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        _flush_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise cannot_write(path, error) from None
        raise
    finally:
        os.close(handle)


def require_writable(folder: Path) -> None:
    """Make ``folder``, before work starts whose results go there.

    Raises:
        AutoReIDError: it cannot be made, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from None
    if not os.access(folder, os.W_OK):
        raise cannot_write(folder, PermissionError(errno.EACCES, "Permission denied"))


def keep_as(source: Path, target: Path) -> None:
    """Let ``target`` hold what ``source`` holds now, atomically: a link, or a copy where need be."""
    if target.exists() and target.samefile(source):
        return  # and renaming one link of a file to another does nothing
    with atomic_path(target) as temporary:
        temporary.unlink()
        try:
            temporary.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, temporary)


def _temporary_beside(path: Path) -> tuple[int, Path]:
    """A new file, and its handle, whose lock says that its writer lives."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # another writer took it for a leftover, before the lock


def _clear_leftovers(path: Path) -> None:
    """Remove the temporaries of ``path`` whose writers were killed."""
    with os.scandir(path.parent) as entries:
        names = [e.path for e in entries if e.name.startswith(f".{path.name}.") and e.name.endswith(".tmp")]
    for name in names:
        with suppress(OSError):  # its writer lives, or has just renamed it
            handle = os.open(name, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                Path(name).unlink()
            finally:
                os.close(handle)


def _flush_folder(folder: Path) -> None:
    """Have a rename on disk; some file systems do so by themselves and refuse to be asked."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def cannot_write(path: str | os.PathLike[str], error: OSError) -> AutoReIDError:
    """The error to raise where ``path`` could not be written: a full disk, no permission, a read-only one."""
    way_out = (
        "make room on that disk, or choose another folder"
        if error.errno in _NO_ROOM
        else "choose a folder that you can write to"
    )
    return AutoReIDError(f"{path}: cannot be written ({error.strerror}): {way_out}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` to ``path`` as indented JSON, atomically; NaN becomes an error, not bad JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
