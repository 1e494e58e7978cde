"""Where a run computes: the device of a name, and how a network lies on it."""

import os
from typing import Literal

import torch
from torch import nn

from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.errors import AutoReIDError

DeviceName = Literal["auto", "cpu", "cuda"]


def choose_device(name: DeviceName) -> torch.device:
    """The device of that name; ``auto`` is CUDA where there is one, and in several processes each its own.

    Raises:
        AutoReIDError: CUDA is asked for where there is none, or fewer devices than processes on this host.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise AutoReIDError("device is cuda, but torch sees no CUDA device here: use --device cpu or auto")
    if name == "cpu" or not available:
        return torch.device("cpu")
    here, devices = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if current_shard().processes > 1 and here > devices:
        raise AutoReIDError(
            f"{here} processes on this host, which has {devices} CUDA devices: start torchrun with "
            f"--nproc-per-node {devices}, or use --device cpu"
        )
    return torch.device("cuda")


def place(model: nn.Module, device: torch.device) -> None:
    """Move ``model`` to ``device``, channels last: that takes a fifth off a supernet step on the CPU."""
    model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
