"""Atomic writing of files."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from autoreid_fast.errors import AutoReIDError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
UNWRITABLE = _NO_SPACE | {errno.EROFS}
"""Error numbers that only writing can raise: the disk is full or read-only."""
LONGEST_NAME = 200
"""Bytes of a name that is made here; file systems allow 255, of which a temporary file adds some."""


def atomic_path(path: str | os.PathLike[str]) -> AbstractContextManager[Path]:
    """Yield a temporary path next to ``path``; on success flush it to disk and rename it to ``path``.

    A crash at any moment leaves either the old file or the new one, never a partial one. A temporary file
    that it may leave is removed by the next writer of ``path``. A link stays a link: the file that it points
    to is replaced. A pipe or device is not replaced: the bytes are written to it.

    Raises:
        AutoReIDError: the file cannot be written: disk full or read-only, no permission, or a failing disk.
    """
    path = Path(path)
    if is_stream(path):
        return _written_through(path)
    return _replaced(path.resolve() if path.is_symlink() else path)


def is_stream(path: Path) -> bool:
    """Return whether ``path`` is a pipe, a device, or an open file of this process: /dev/stdout."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISDIR(mode) and (descriptor_of(path) is not None or not stat.S_ISREG(mode))


def descriptor_of(path: Path) -> int | None:
    """Return the descriptor of the open file that ``path`` stands for: /dev/stdin, or a shell's <(...)."""
    if not path.exists():  # or links that go in circles
        return None
    path = path.parent.resolve() / path.name
    if path.parent in (Path(f"/proc/{os.getpid()}/fd"), Path("/dev/fd")):
        return int(path.name)
    return descriptor_of(path.parent / path.readlink()) if path.is_symlink() else None


@contextmanager
def _written_through(path: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / "content"
        temporary.touch()
        yield temporary
        descriptor = descriptor_of(path)
        try:
            # opened anew, a file would be written from its start, or over what follows
            opened = path if descriptor is None else os.dup(descriptor)
            with open(opened, "wb") as stream, temporary.open("rb") as content:  # noqa: PTH123
                shutil.copyfileobj(content, stream)
        except OSError as error:
            raise cannot_write(path, error) from None


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
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
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and _is_of(error, temporary):
            raise cannot_write(path, error) from None
        raise
    finally:
        with suppress(OSError):
            os.close(handle)


def _is_of(error: OSError, temporary: Path) -> bool:
    """Whether ``error`` is of writing ``temporary``: writes name no file, and other files name themselves."""
    return error.errno in _NO_SPACE or error.filename is None or str(error.filename) == str(temporary)


def require_writable(folder: Path) -> None:
    """Check that results can be written to ``folder``, before the work starts; it need not exist.

    Raises:
        AutoReIDError: it cannot be made or written to.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise cannot_write(folder, NotADirectoryError(errno.ENOTDIR, f"{existing} is not a folder"))
    if not os.access(existing, os.W_OK):
        raise cannot_write(folder, PermissionError(errno.EACCES, "Permission denied"))


CHECKPOINTS = (".pt", ".pth")
"""Suffixes of files that no result has."""


def require_file(path: Path) -> None:
    """Check that results can be written to the file ``path``, before the work starts.

    Raises:
        AutoReIDError: it is a folder or a checkpoint, or it or its folder cannot be written to.
    """
    if path.suffix in CHECKPOINTS and path.is_file():
        raise AutoReIDError(f"{path}: is a checkpoint, which the results would replace; give another name")
    if path.is_dir():
        raise AutoReIDError(f"{path}: is a folder; give the name of a file, such as {path / 'results.json'}")
    if not is_stream(path):
        require_writable(path.resolve().parent)
    elif not os.access(path, os.W_OK):  # a pipe or a device: its folder does not matter
        raise cannot_write(path, PermissionError(errno.EACCES, "Permission denied"))


def require_regular(path: Path) -> None:
    """Check that ``path`` is no pipe, socket or device, before it is read: that could take for ever.

    Raises:
        OSError: it is one. A missing file and a folder are left to the reader.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def keep_as(source: Path, target: Path) -> None:
    """Make ``target`` a snapshot of ``source``, atomically: a hard link, or a copy if that is impossible."""
    if target.exists() and target.samefile(source):
        return  # renaming a link of a file to another link of it would leave both
    with atomic_path(target) as temporary:
        temporary.unlink()
        try:
            temporary.hardlink_to(source)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, temporary)


def _temporary_beside(path: Path) -> tuple[int, Path]:
    """Create a temporary file; return its handle, whose lock shows that its writer is alive, and its path."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path), suffix=".tmp")
        with suppress(OSError):  # the file system has no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # another writer removed it as a leftover before it was locked


def _prefix(path: Path) -> str:
    """Start of the names of the temporary files of ``path``; its own name may be as long as names can be."""
    return f".{short_name(path.name)}."


def short_name(name: str) -> str:
    """Shorten a file name to `LONGEST_NAME` bytes; its extension and a hash of all of it stay."""
    encoded = os.fsencode(name)
    if len(encoded) <= LONGEST_NAME:
        return name
    end = f"-{hashlib.sha256(encoded).hexdigest()[:8]}{Path(name).suffix[:16]}"
    start = encoded[: LONGEST_NAME - len(os.fsencode(end))]
    return start.decode(errors="ignore") + end


def _clear_leftovers(path: Path) -> None:
    """Remove the temporary files of ``path`` whose writers were killed."""
    with os.scandir(path.parent) as entries:
        names = [e.path for e in entries if e.name.startswith(_prefix(path)) and e.name.endswith(".tmp")]
    for name in names:
        with suppress(OSError):  # its writer is alive, or has just renamed it
            handle = os.open(name, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                Path(name).unlink()
            finally:
                os.close(handle)


def _flush_folder(folder: Path) -> None:
    """Flush a rename to disk; some file systems do so by themselves and refuse the call."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def cannot_write(path: str | os.PathLike[str], error: OSError) -> AutoReIDError:
    """Return the error for a ``path`` that cannot be written: disk full or read-only, or no permission."""
    way_out = (
        "free some space on that disk, or choose another folder"
        if error.errno in _NO_SPACE or error.errno is None  # NumPy gives no number if a write falls short
        else "choose a folder that you can write to"
    )
    return AutoReIDError(f"{path}: cannot be written ({error.strerror or error}); {way_out}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` atomically, in UTF-8; bytes of file names that are not are escaped."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` to ``path`` as indented JSON, atomically; ValueError for NaN, which is not JSON."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
