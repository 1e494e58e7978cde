"""`make gpu-sanitize`: what it runs where there is a GPU, by a tool that stands for compute-sanitizer."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.fixture
def sanitize() -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "tools" / "sanitize.py"
    spec = importlib.util.spec_from_file_location("sanitize", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_a_gpu_it_says_so(
    sanitize: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert sanitize.main("gpu") == 1
    assert capfd.readouterr().out == "gpu-sanitize: no CUDA device on this machine: nothing was checked\n"


def test_every_tool_runs_and_has_a_line(
    sanitize: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(
        f'#!/bin/sh\necho "$@ caching=$PYTORCH_NO_CUDA_MEMORY_CACHING" >> {tmp_path}/calls\n'
        'case "$2" in racecheck) exit 9;; initcheck) exit 1;; esac\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert sanitize.main("gpu") == 1
    lines = capfd.readouterr().out.splitlines()
    assert lines == [
        "gpu-sanitize: memcheck: clean",
        "gpu-sanitize: racecheck: found something",
        "gpu-sanitize: initcheck: ended with 1: tests failed",
    ]
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[1] for call in calls] == ["memcheck", "racecheck", "initcheck"]
    for call in calls:
        options, child = call.split(f" {sys.executable} -m pytest ")
        assert options.split()[2:] == [
            "--target-processes",
            "all",
            "--require-cuda-init",
            "no",
            "--error-exitcode",
            "9",
        ]
        assert "-m gpu" in child
        assert "test_stencil3x3_gpu.py" in child
        assert child.endswith("-k not capture caching=1")
