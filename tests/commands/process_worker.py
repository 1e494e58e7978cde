"""One process of test_distributed.py: run the command lines of a JSON file in one process group.

Everything is computed in float64, so that differences between runs are not due to rounding.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from autoreid_fast.cli import main
from autoreid_fast.commands import search, train
from autoreid_fast.distributed import group
from autoreid_fast.distributed.group import joined_processes
from autoreid_fast.runs import folder


@contextmanager
def in_double() -> Iterator[None]:
    """Compute in float64: parameters by default, images on their way into a convolution."""

    def to_double(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return (inputs[0].double(),) if isinstance(module, nn.Conv2d) else None

    in_float32, folder.in_float32 = folder.in_float32, nullcontext
    hook = register_module_forward_pre_hook(to_double)
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        hook.remove()
        folder.in_float32 = in_float32


if __name__ == "__main__":
    torch.set_num_threads(1)
    search.draw_report = train.draw_report = lambda path: None
    group.TIMEOUT = timedelta(minutes=10)  # on a busy machine
    with joined_processes(), in_double():
        for line in json.loads(Path(sys.argv[1]).read_text()):
            if status := main(line):
                raise SystemExit(status)
