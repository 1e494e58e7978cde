"""Names of devices: those that exist, and one line for all others."""

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from autoreid_fast.devices import DeviceName, choose_device
from autoreid_fast.errors import AutoReIDError

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
