"""Where the time of the omega and alpha step pair goes, operation by operation."""

import statistics
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from pydantic import Field
from torch.profiler import ProfilerActivity, profile

from autoreid_fast.devices import choose_device
from autoreid_fast.nas.input_size import check_input_size
from autoreid_fast.ops import specs
from autoreid_fast.schema import Config
from autoreid_fast.search.config import SearchConfig
from autoreid_fast.search.searcher import Batch, Searcher

WARM_UP = 4
"""Pairs before the first one that counts: a captured step is recorded in the fourth."""

TORCH_FAMILIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("convolution", ("conv", "cudnn", "wgrad", "dgrad", "fprop")),
    ("matrix product", ("mm", "gemm", "linear", "matmul", "addmv")),
    ("batch norm", ("batch_norm", "bn_")),
    ("pooling", ("pool",)),
    ("optimiser and clipping", ("optimizer", "_foreach", "_fused", "norm", "clip")),
    ("copies", ("copy", "cat", "stack", "contiguous", "clone", "memcpy", "pad", "memset")),
    ("allocation and views", ("empty", "zeros", "fill", "zero_", "as_strided", "view", "select", "slice",
                              "transpose", "permute", "reshape", "expand", "unbind", "squeeze", "detach")),
)  # fmt: skip
FAMILIES = (*((spec.name, spec.family) for spec in specs() if spec.family), *TORCH_FAMILIES)
"""Families of operations: our ops, then torch's. An operation or kernel is in the first with a word of its
name."""
REST = "other arithmetic"


class ProfileConfig(Config):
    """Profile the search's step pair on random images: seconds, memory, operations and their shares."""

    space: str = Field("reid", description="Search space: reid or standard.")
    channels: int = Field(32, ge=2, description="C (paper: 32 in search).")
    cells_per_block: tuple[int, int, int, int] = Field((2, 2, 2, 2), description="l (paper: 2 2 2 2).")
    height: int = Field(384, ge=1, description="Image height in pixels (paper: 384).")
    width: int = Field(128, ge=1, description="Image width in pixels (paper: 128).")
    identities: int = Field(4, ge=2, description="P: identities in a batch (paper's batch of 16: 4).")
    images: int = Field(4, ge=2, description="K: images of each identity (paper: 4).")
    supernet: str = Field("source", description="source or reference, as in search.")
    precision: str = Field("float32", description="float32 or bfloat16, as in search.")
    execution: str = Field("auto", description="auto, captured or eager, as in search.")
    device: str = Field("auto", description="auto, cpu or cuda.")
    pairs: int = Field(3, ge=1, description="Step pairs that are timed.")

    def search(self) -> SearchConfig:
        """The search whose steps these are."""
        names = ("space", "channels", "cells_per_block", "supernet", "precision", "execution", "device")
        return SearchConfig.model_validate({name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Operation:
    """One operation of a step pair: how often it ran, and its own milliseconds, without what it called."""

    name: str
    family: str
    calls: int
    milliseconds: float


@dataclass(frozen=True)
class StepProfile:
    """One step pair: median ``seconds`` unprofiled, and what the profiler saw of a further one.

    ``launches``: kernels on CUDA, operators with work of their own on the CPU. ``peak_bytes``: on CUDA the
    allocator's peak; None on the CPU, where `bench supernet_step` measures it in a process of its own.
    """

    device: str
    batch: int
    seconds: float
    launches: int
    peak_bytes: int | None
    operations: tuple[Operation, ...]

    @property
    def families(self) -> dict[str, float]:
        """Milliseconds of each family of operations, the largest first."""
        total: defaultdict[str, float] = defaultdict(float)
        for operation in self.operations:
            total[operation.family] += operation.milliseconds
        return dict(sorted(total.items(), key=lambda item: -item[1]))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "families": self.families}


def family_of(name: str) -> str:
    """The family of an operation or a kernel."""
    lowered = name.lower()
    return next((family for family, words in FAMILIES if any(word in lowered for word in words)), REST)


def profile_step(config: ProfileConfig) -> StepProfile:
    """Time step pairs on random images, then profile one.

    Raises:
        AutoReIDError: device or sizes do not allow it.
    """
    search = config.search()
    device = choose_device(search.device)
    check_input_size(config.height, config.width, config.space, config.cells_per_block)
    torch.manual_seed(0)
    searcher = Searcher(search, config.identities, device)
    searcher.model.train()
    searcher.set_epoch(0)
    pair = [_batch(config, device) for _ in range(2)]
    for _ in range(WARM_UP if device.type == "cuda" else 1):
        searcher.step(*pair)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = [_timed(searcher, pair, device) for _ in range(config.pairs)]
    with profile(activities=_activities(device)) as profiler:
        _timed(searcher, pair, device)
    operations = _operations(profiler.key_averages(), device)
    return StepProfile(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        batch=config.identities * config.images,
        seconds=statistics.median(seconds),
        launches=sum(operation.calls for operation in operations),
        peak_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        operations=operations,
    )


def _batch(config: ProfileConfig, device: torch.device) -> Batch:
    labels = torch.arange(config.identities, device=device).repeat_interleave(config.images)
    images = torch.randn(len(labels), 3, config.height, config.width, device=device)
    return images.contiguous(memory_format=torch.channels_last), labels


def _timed(searcher: Searcher, pair: list[Batch], device: torch.device) -> float:
    began = time.perf_counter()
    searcher.step(*pair)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _activities(device: torch.device) -> list[ProfilerActivity]:
    return [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])


def _operations(events: Iterable[Any], device: torch.device) -> tuple[Operation, ...]:
    """What took time of its own on ``device``, the longest first."""
    cuda = device.type == "cuda"
    found: dict[str, tuple[int, float]] = {}
    for event in events:
        if cuda and not str(event.device_type).endswith("CUDA"):
            continue
        microseconds = event.self_device_time_total if cuda else event.self_cpu_time_total
        name = _readable(event.key)
        if microseconds > 0 and not name.startswith("autograd::"):
            calls, before = found.get(name, (0, 0.0))
            found[name] = (max(calls, event.count), before + microseconds)
    return tuple(
        Operation(name, family_of(name), calls, microseconds / 1e3)
        for name, (calls, microseconds) in sorted(found.items(), key=lambda item: -item[1][1])
    )


def _readable(name: str) -> str:
    """Our ops by their names: torch books a forward call's time on the wrapper of its autograd formula."""
    wrapper = "GeneratedBackwardFor_autoreid_fast_"
    if name.startswith(wrapper):
        inner = name.removeprefix(wrapper)
        op = inner.partition("_default")[0]
        return f"autoreid_fast::{op}" + ("_backward" if inner.endswith("Backward") else "")
    return name
