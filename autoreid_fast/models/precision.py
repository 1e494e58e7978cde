"""The dtype that networks of runs and files are built in."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def in_float32() -> Iterator[None]:
    """Make float32 torch's default dtype inside the block, or the decorated function.

    Images, checkpoints and model cards are float32, whatever `torch.set_default_dtype` was given. Like that
    default, it holds for all threads.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
