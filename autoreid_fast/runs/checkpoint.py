"""Checkpoint files: everything that a run needs to resume exactly where it stopped.

A file holds what ``torch.save`` writes (``torch.load`` reads it), the CRC-32 of that, and a magic string.
"""

import io
import struct
import textwrap
from pathlib import Path
from typing import Any
from zlib import crc32

import torch

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.files import atomic_path, require_regular

FORMAT = 2
READABLE = (1, FORMAT)
"""Format 1 had no checksum, and was written only between epochs."""
TAIL = struct.Struct("<I12s")
MAGIC = b"autoreid-pt\n"


class DamagedCheckpointError(AutoReIDError):
    """A checkpoint is torn or corrupt; the previous one may be intact."""


class MissingCheckpointError(AutoReIDError):
    """There is no checkpoint at a path."""


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, containers) and torch's random states, atomically."""
    random = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["cuda"] = torch.cuda.get_rng_state()
    stream = io.BytesIO()  # torch hides a full disk behind an error of its own when it writes to a file
    torch.save({"format": FORMAT, "random": random, **state}, stream)
    content = stream.getbuffer()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        file.write(TAIL.pack(crc32(content), MAGIC))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint as data; no code in it is run.

    Raises:
        DamagedCheckpointError: the content is not what was written.
        MissingCheckpointError: there is no such file.
        AutoReIDError: it has another format.
    """
    try:
        require_regular(path)
        content = memoryview(path.read_bytes())
    except FileNotFoundError:
        raise MissingCheckpointError(f"{path}: no such checkpoint") from None
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from None
    checksum, magic = TAIL.unpack(content[-TAIL.size :]) if len(content) >= TAIL.size else (0, b"")
    if magic == MAGIC and crc32(content[: -TAIL.size]) != checksum:
        raise _damaged(path, "its checksum does not match")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise errors of many types
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise _damaged(path, reason.partition(". ")[0]) from None
    if not isinstance(state, dict) or state.get("format") not in READABLE:
        raise AutoReIDError(f"{path}: not a checkpoint of this version of autoreid_fast (format {FORMAT})")
    if state["format"] == FORMAT and magic != MAGIC:
        raise _damaged(path, "its checksum is missing")
    return state


def _damaged(path: Path, reason: str) -> DamagedCheckpointError:
    return DamagedCheckpointError(f"{path}: not a readable checkpoint ({reason})")


def mismatch(error: Exception) -> str:
    """Describe in one line why a state could not be loaded: the first entry that ``error`` names."""
    lines = [line.strip() for line in str(error).splitlines()]
    return textwrap.shorten(" ".join(lines[1:2] or lines), 200, placeholder=" ...")


def restore_random_state(state: dict[str, Any]) -> None:
    """Set torch's random states to those of a loaded checkpoint."""
    torch.set_rng_state(state["random"]["cpu"])
    if "cuda" in state["random"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["random"]["cuda"])
