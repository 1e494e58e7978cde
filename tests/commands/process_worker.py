"""One process of test_distributed.py: the command lines of a JSON file, one after the other, joined once.

All of it is in float64: what is left between runs is no rounding.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from autoreid_fast.cli import main
from autoreid_fast.distributed import group
from autoreid_fast.distributed.group import joined_processes


@contextmanager
def in_double() -> Iterator[None]:
    """Parameters in float64, and so all that is computed from images."""

    def to_double(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return (inputs[0].double(),) if isinstance(module, nn.Conv2d) else None

    hook = register_module_forward_pre_hook(to_double)
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        hook.remove()


if __name__ == "__main__":
    torch.set_num_threads(1)
    group.TIMEOUT = timedelta(minutes=10)  # a busy machine is no dead process
    with joined_processes(), in_double():
        for line in json.loads(Path(sys.argv[1]).read_text()):
            if status := main(line):
                raise SystemExit(status)
