"""Timer, memory meter and machine ceilings of the benchmarks."""

import functools
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from autoreid_fast.search.captured import capture, run_on_side_stream

ROUNDS = 25
MIN_ROUNDS = 5
COPY_BYTES = {"cpu": 256 << 20, "cuda": 1 << 30}
GEMM_SIZE = {"cpu": 2048, "cuda": 8192}

Step = Callable[[], Any]


@dataclass(frozen=True)
class Samples:
    """Seconds per step, one entry per round; each entry is the mean of ``calls`` steps in a row."""

    seconds: tuple[float, ...]
    calls: int


def sample(step: Step, calls: int, device: str, queued: bool = False) -> float:
    """Mean seconds of ``calls`` steps, by the host's clock on the CPU and by CUDA events on the GPU.

    Every step on the GPU starts with an L2 cache that has none of its data and nothing to write back. It
    starts on an idle stream, so that the time includes the host's launches. If ``queued``, it starts behind
    the flush of the cache, so that the time is the device's only, if launching takes no longer than the
    flush.
    """
    if device == "cuda":
        events = []
        for _ in range(calls):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            _flush()()
            if not queued:
                torch.cuda.synchronize()
            start.record()
            step()
            end.record()
            events.append((start, end))
        torch.cuda.synchronize()
        return sum(start.elapsed_time(end) for start, end in events) / 1e3 / calls
    began = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - began) / calls


@functools.cache
def _flush() -> Step:
    """A step that reads four times the size of the L2 cache; lines it wrote would have to be written back."""
    numbers = torch.zeros(torch.cuda.get_device_properties().L2_cache_size, device="cuda")
    total = torch.empty((), device="cuda")
    return lambda: torch.sum(numbers, 0, out=total)


def replay(step: Step) -> tuple[Step, Any] | None:
    """Record ``step`` as a CUDA graph: a function that replays it, and its outputs.

    Returns:
        None where the step waits for the host. This is tested first, because a failed recording cannot be
        undone in this process.
    """
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    except RuntimeError:
        return None
    finally:
        torch.cuda.set_sync_debug_mode("default")
    run_on_side_stream(step)
    return capture(step)


def interleaved(
    steps: Mapping[str, Step], device: str, seconds: float, queued: bool = False
) -> dict[str, Samples]:
    """Time the steps in rounds, once per round each, so that drift of the machine affects all alike.

    A sample takes ``seconds`` / ROUNDS, or one call where that is longer; all samples take about ``seconds``
    per step, or MIN_ROUNDS rounds where that is longer. Each round starts with the next step in turn.
    """
    calls, duration = {}, 0.0
    for name, step in steps.items():
        sample(step, 2, device, queued)  # warm-up
        began = time.perf_counter()
        sample(step, 1, device, queued)
        one = time.perf_counter() - began
        calls[name] = max(1, int(seconds / ROUNDS / max(one, 1e-7)))
        duration += calls[name] * one
    rounds = min(ROUNDS, max(MIN_ROUNDS, int(seconds * len(steps) / max(duration, 1e-7))))
    seconds_of: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                seconds_of[name].append(sample(steps[name], calls[name], device, queued))
    finally:
        if collecting:
            gc.enable()
    return {name: Samples(tuple(seconds_of[name]), calls[name]) for name in names}


def peak_bytes(step: Step, device: str) -> int:
    """Peak of the bytes that one step allocates through torch, its results included.

    On the GPU the peak of the caching allocator; on the CPU the running sum of allocations and frees that
    torch's profiler records. Allocations inside libraries, such as a GEMM's packing buffers, are not counted.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        with _silent(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            results = step()
        profiler.export_chrome_trace(str(trace))
        del results
        events = json.loads(trace.read_text())["traceEvents"]
    allocations = [event for event in events if event.get("name") == "[memory]"]
    held = peak = 0
    for event in sorted(allocations, key=lambda event: float(event["ts"])):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak


@contextmanager
def _silent() -> Iterator[None]:
    """Redirect standard error to nothing: the profiler's native code logs its start and stop there."""
    saved, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nothing)


@dataclass(frozen=True)
class Ceiling:
    """Rates of the machine: bytes per second of a large copy, FLOPs per second of a large matrix product."""

    copy_bytes_per_s: float
    gemm_flops_per_s: float


def ceiling(device: str, dtype: torch.dtype) -> Ceiling:
    """Measure the ceiling of a device, once per process for each device, dtype and number of threads."""
    return _ceiling(device, dtype, torch.get_num_threads())


@functools.cache
def _ceiling(device: str, dtype: torch.dtype, threads: int) -> Ceiling:
    source = torch.ones(COPY_BYTES[device] // 4, device=device)
    target = torch.empty_like(source)
    size = GEMM_SIZE[device]
    matrix = torch.randn(size, size, device=device).to(dtype)
    product = torch.empty_like(matrix)
    steps = {"copy": lambda: target.copy_(source), "gemm": lambda: torch.mm(matrix, matrix, out=product)}
    medians = {
        name: statistics.median(samples.seconds) for name, samples in interleaved(steps, device, 0.5).items()
    }
    return Ceiling(2 * source.nbytes / medians["copy"], 2 * size**3 / medians["gemm"])
