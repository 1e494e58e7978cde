"""Names of devices: those that exist, and one line for all others."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from autoreid_fast import devices
from autoreid_fast.devices import DeviceName, choose_device, place
from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.operations.layers import AveragePool

WRONG = ["mps", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "cpu:0", "", "meta", "cuda:0 "]


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> list[int]:
    """Pretend that torch finds ``count`` GPUs; the result collects the current ones."""
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


@pytest.mark.parametrize("name", WRONG)
def test_other_words_are_refused(name: str) -> None:
    with pytest.raises(AutoReIDError, match=r"device is .*; expected auto, cpu, cuda, or cuda:N"):
        choose_device(name)
    with pytest.raises(ValidationError, match="expected auto, cpu"):
        TypeAdapter(DeviceName).validate_python(name)


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    assert choose_device("auto") == choose_device("cpu") == choose_device(torch.device("cpu"))
    for name in ("cuda", "cuda:0"):
        with pytest.raises(AutoReIDError, match=f"device is {name}, but torch finds no CUDA device"):
            choose_device(name)


def test_one_gpu_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    current = gpus(monkeypatch, 3)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cuda:2") == torch.device("cuda", 2)
    assert current == [2]
    with pytest.raises(AutoReIDError, match="device is cuda:3, but torch finds 3 CUDA devices"):
        choose_device("cuda:3")


@pytest.fixture
def fresh_probe() -> Iterator[None]:
    devices._avg_pool_gradients_agree.cache_clear()
    yield
    devices._avg_pool_gradients_agree.cache_clear()


class WrongPool(torch.autograd.Function):
    """An average pool whose backward pass ignores the padding, as that of torch 2.11 on CUDA."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, stride: int) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.stride = stride
        return torch.ops.aten.avg_pool2d(x, [3, 3], [stride, stride], [1, 1], False, False)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (x,) = ctx.saved_tensors
        args = [3, 3], [ctx.stride, ctx.stride], [1, 1], False, True, None
        return torch.ops.aten.avg_pool2d_backward(grad, x, *args), None


@pytest.mark.usefixtures("fresh_probe")
def test_the_probe_of_average_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.no_grad():
        assert devices._avg_pool_gradients_agree("cpu")
    devices._avg_pool_gradients_agree.cache_clear()
    right = torch.nn.functional.avg_pool2d

    def wrong(x: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        wrong_here = x.is_contiguous(memory_format=torch.channels_last)
        return WrongPool.apply(x, args[1]) if wrong_here else right(x, *args, **options)  # type: ignore[no-any-return]

    monkeypatch.setattr(torch.nn.functional, "avg_pool2d", wrong)
    assert not devices._avg_pool_gradients_agree("cpu")


def test_users_average_pools_are_warned_about(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = nn.Sequential(nn.AvgPool2d(2), nn.AvgPool2d(3, padding=1), AveragePool(2))
    monkeypatch.setattr(devices, "_avg_pool_gradients_agree", lambda device: False)
    monkeypatch.setattr(nn.Module, "to", lambda self, *_, **__: self)
    with caplog.at_level(logging.WARNING, "autoreid_fast"):
        place(model, torch.device("cuda"))
    assert [record.args[0] for record in caplog.records if record.args] == ["1"]
