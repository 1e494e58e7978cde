"""Ragged rows in CSR form: row i of ``entries`` is ``entries[offsets[i]:offsets[i + 1]]``."""

import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError


def row_indices(offsets: Tensor) -> Tensor:
    """Row of every entry: (M,) int64 for (Q + 1,) int64 ``offsets``."""
    rows = torch.arange(len(offsets) - 1, device=offsets.device)
    return rows.repeat_interleave(offsets.diff())


def offsets_of(lengths: Tensor) -> Tensor:
    """Offsets (Q + 1,) int64 of rows with (Q,) int64 ``lengths``."""
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0))


def slice_rows(offsets: Tensor, entries: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Offsets and entries of the rows ``start`` to ``stop`` - 1."""
    offsets = offsets[start : stop + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    return offsets - first, entries[first:last]


def require_end(function: str, offsets_name: str, offsets: Tensor, name: str, entries: Tensor) -> None:
    """Raise where ``offsets`` do not end at the number of entries.

    On the CPU only (on a GPU it would be a host sync), and not under `torch.compile`.

    Raises:
        AutoReIDError: it names the entries by ``name``.
    """
    if offsets.device.type != "cpu" or torch.compiler.is_compiling():
        return
    end = int(offsets[-1])
    if end != len(entries):
        raise AutoReIDError(
            f"{function}: `{name}` has {len(entries)} entries; expected {end}, the last of `{offsets_name}`"
        )
