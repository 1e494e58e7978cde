"""One check for tensors whose shape, dtype and device are all known."""

import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError


def require(
    name: str,
    tensor: Tensor,
    shape: tuple[int | str, ...],
    dtype: torch.dtype | tuple[torch.dtype, ...],
    device: torch.device,
    reason: str = "",
) -> None:
    """Raise where ``tensor`` is not of this shape, dtype and device.

    Args:
        name: what the message calls it: the op, a colon and the argument.
        shape: a number for a size that must be, a letter for one that may be anything.
        dtype: the dtype, or those it may have.
        reason: the argument that decides so, as "as query has (3, 4)".

    Raises:
        AutoReIDError: it is not.
    """
    dtypes = dtype if isinstance(dtype, tuple) else (dtype,)
    sizes = zip(tensor.shape, shape, strict=False)
    fits = tensor.ndim == len(shape) and all(size == want or isinstance(want, str) for size, want in sizes)
    if not fits or tensor.dtype not in dtypes or tensor.device != device:
        wanted = f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
        raise AutoReIDError(
            f"{name} is {tuple(tensor.shape)} {tensor.dtype} on {tensor.device}; expected {wanted} "
            f"{' or '.join(map(str, dtypes))} on {device}{', ' if reason else ''}{reason}"
            + (f": call .to({dtypes[0]})" if fits and tensor.dtype not in dtypes else "")
        )


def require_total(name: str, offsets: Tensor, entries: Tensor) -> None:
    """Raise where the last of (Q + 1,) ``offsets`` is not the number of ``entries``.

    On the CPU alone: on a GPU it would be a host sync.

    Raises:
        AutoReIDError: it is not.
    """
    if offsets.device.type == "cpu" and not torch.compiler.is_compiling() and len(offsets):
        total = int(offsets[-1])
        if total != len(entries):
            raise AutoReIDError(f"{name} has {len(entries)} entries, but its offsets end at {total}")
