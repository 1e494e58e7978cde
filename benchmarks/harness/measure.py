"""Seconds, bytes and rates: the one timer of the benchmarks, the memory meter and the machine's ceilings."""

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

from autoreid_fast.training.captured import capture, run_aside

ROUNDS = 25
FEWEST_ROUNDS = 5
COPY_BYTES = {"cpu": 256 << 20, "cuda": 1 << 30}
GEMM_SIZE = {"cpu": 2048, "cuda": 8192}

Step = Callable[[], Any]


@dataclass(frozen=True)
class Samples:
    """Seconds a step, one entry a round; each entry is the mean of ``calls`` steps in a row."""

    seconds: tuple[float, ...]
    calls: int


def sample(step: Step, calls: int, device: str, queued: bool = False) -> float:
    """Mean seconds of ``calls`` steps: in a row by the host's clock on the CPU, each by events on the GPU.

    A step on the GPU begins with an L2 cache that holds nothing of it and owes nothing to memory. It begins
    on an idle stream, so that the time holds what the host takes to launch it; if ``queued``, behind the
    flush of the cache, so that the time is the device's alone where launching takes no longer than that.
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
    """Reads four times what the L2 cache holds; by reading, for written lines would still have to leave."""
    numbers = torch.zeros(torch.cuda.get_device_properties().L2_cache_size, device="cuda")
    total = torch.empty((), device="cuda")
    return lambda: torch.sum(numbers, 0, out=total)


def replay(step: Step) -> tuple[Step, Any] | None:
    """``step`` as a CUDA graph: what replays it, and its outputs; None where it waits for the host.

    A recording that fails cannot be undone in this process, so what would fail is asked for first.
    """
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    except RuntimeError:
        return None
    finally:
        torch.cuda.set_sync_debug_mode("default")
    run_aside(step)
    return capture(step)


def interleaved(
    steps: Mapping[str, Step], device: str, seconds: float, queued: bool = False
) -> dict[str, Samples]:
    """Time the steps in rounds, each once a round, so that drift of the machine hits all alike.

    A sample takes ``seconds`` / ROUNDS, or one call where that is longer; the whole about ``seconds``
    a step, or FEWEST_ROUNDS rounds where that is longer. The first place in a round goes round.
    """
    calls, duration = {}, 0.0
    for name, step in steps.items():
        sample(step, 2, device, queued)  # warm-up
        began = time.perf_counter()
        sample(step, 1, device, queued)
        one = time.perf_counter() - began
        calls[name] = max(1, int(seconds / ROUNDS / max(one, 1e-7)))
        duration += calls[name] * one
    rounds = min(ROUNDS, max(FEWEST_ROUNDS, int(seconds * len(steps) / max(duration, 1e-7))))
    taken: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                taken[name].append(sample(steps[name], calls[name], device, queued))
    finally:
        if collecting:
            gc.enable()
    return {name: Samples(tuple(taken[name]), calls[name]) for name in names}


def peak_bytes(step: Step, device: str) -> int:
    """Peak of the bytes that one step allocates through torch, its results included.

    On the GPU the caching allocator's own peak; on the CPU the running sum of the allocations and frees
    that torch's profiler records. What a library allocates by itself (a GEMM's packing buffers) is unseen.
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
    """Close standard error for a moment: the profiler's native half logs its start and stop there."""
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
    """What the machine can do: bytes a second of a large copy, FLOPs a second of a large product."""

    copy_bytes_per_s: float
    gemm_flops_per_s: float


def ceiling(device: str, dtype: torch.dtype) -> Ceiling:
    """Measure the ceilings of a device, once a process for each device, dtype and number of threads."""
    return _ceiling(device, dtype, torch.get_num_threads())


@functools.cache
def _ceiling(device: str, dtype: torch.dtype, threads: int) -> Ceiling:
    source = torch.ones(COPY_BYTES[device] // 4, device=device)
    target = torch.empty_like(source)
    size = GEMM_SIZE[device]
    matrix = torch.randn(size, size, device=device).to(dtype)
    product = torch.empty_like(matrix)
    steps = {"copy": lambda: target.copy_(source), "gemm": lambda: torch.mm(matrix, matrix, out=product)}
    taken = {
        name: statistics.median(samples.seconds) for name, samples in interleaved(steps, device, 0.5).items()
    }
    return Ceiling(2 * source.nbytes / taken["copy"], 2 * size**3 / taken["gemm"])
