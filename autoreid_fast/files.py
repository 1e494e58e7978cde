"""Writing files so that a reader never sees half of one."""

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autoreid_fast.errors import AutoReIDError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
UNWRITABLE = _NO_ROOM | {errno.EROFS}
"""The numbers of errors that only writing can have: a full or a read-only disk."""


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success flush it to disk and rename it to ``path``.

    A crash at any moment leaves either the old file or the new one, never a torn one.

    Raises:
        AutoReIDError: the folder cannot be written to, or its disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise cannot_write(path, error) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise cannot_write(path, error) from None
        raise


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
