"""Device of a run, memory layout of networks on it, and what the installed torch gets wrong there."""

import logging
import os
import re
from functools import cache
from typing import Annotated

import torch
from pydantic import AfterValidator
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import _disable_current_modes

from autoreid_fast.distributed.processes import current_shard
from autoreid_fast.errors import AutoReIDError


def _known(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ValueError("expected auto, cpu, cuda, or cuda:N with the number of a GPU")
    return name


_log = logging.getLogger("autoreid_fast")
DeviceName = Annotated[str, AfterValidator(_known)]
"""``auto`` (CUDA if available), ``cpu``, ``cuda`` or ``cuda:N``."""


def choose_device(name: str | torch.device) -> torch.device:
    """Return the device called ``name``; ``auto`` is CUDA if available. Each process has its own GPU.

    A device ``cuda:N`` becomes the process's current CUDA device.

    Raises:
        AutoReIDError: no such device, CUDA is not available, or this host has fewer GPUs than processes.

    Examples:
        >>> from autoreid_fast.devices import choose_device
        >>> choose_device("cpu")
        device(type='cpu')
    """
    name = str(name)
    try:
        _known(name)
    except ValueError as error:
        raise AutoReIDError(f"device is {name!r}; {error}") from None
    kind, _, number = name.partition(":")
    available = torch.cuda.is_available()
    if kind == "cuda" and not available:
        raise AutoReIDError(f"device is {name}, but torch finds no CUDA device: use cpu or auto")
    if kind == "cpu" or not available:
        return torch.device("cpu")
    processes, devices = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if number:
        return _numbered(int(number), devices)
    if current_shard().processes > 1 and processes > devices:
        raise AutoReIDError(
            f"{processes} processes on a host with {devices} CUDA devices: start torchrun with "
            f"--nproc-per-node {devices}, or use --device cpu"
        )
    return torch.device("cuda")


def _numbered(number: int, devices: int) -> torch.device:
    if current_shard().processes > 1:
        raise AutoReIDError(f"device is cuda:{number}, but each process has a GPU of its own: use cuda")
    if number >= devices:
        raise AutoReIDError(f"device is cuda:{number}, but torch finds {devices} CUDA devices, from cuda:0")
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def place(model: nn.Module, device: torch.device) -> None:
    """Move ``model`` to ``device``, channels last: a supernet step on the CPU takes 20 % less time."""
    model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if device.type == "cuda" and not avg_pool_backward_is_right():
        for name, layer in model.named_modules():
            if type(layer) is nn.AvgPool2d and layer.padding not in (0, (0, 0)):
                _log.warning(
                    "layer %s is an nn.AvgPool2d with padding, whose gradient torch %s gets wrong on CUDA in "
                    "channels last (pytorch issue 188344): pad in a layer of its own, or use another torch",
                    name,
                    torch.__version__,
                )


def avg_pool_backward_is_right() -> bool:
    """Whether torch's backward pass of a padded average pool is right for channels-last tensors on CUDA.

    It ignores the padding in some versions (pytorch issue 188344). The first call tries it on the GPU.
    """
    return _avg_pool_gradients_agree("cuda")


# As `torch.compiler.assume_constant_result`, which imports torch._dynamo: `torch.compile` calls it, once.
avg_pool_backward_is_right._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache
def _avg_pool_gradients_agree(device: str) -> bool:
    """Whether an average pool's gradients on ``device`` equal those of contiguous float64 on the CPU."""
    values = torch.arange(2 * 8 * 7 * 5).view(2, 8, 7, 5).remainder(11)
    with _disable_current_modes(), torch.inference_mode(False), torch.enable_grad():
        for stride in (1, 2):
            expected = values.double().requires_grad_()
            found = values.float().to(device).contiguous(memory_format=torch.channels_last).requires_grad_()
            for x in (expected, found):
                F.avg_pool2d(x, 3, stride, padding=1, count_include_pad=False).square().sum().backward()
            assert expected.grad is not None and found.grad is not None
            if not torch.allclose(found.grad.double().cpu(), expected.grad, rtol=1e-3):
                return False
    return True
