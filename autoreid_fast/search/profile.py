"""Profile of the omega and alpha step pair: time per operation and per family of operations."""

import statistics
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from pydantic import Field
from torch.profiler import ProfilerActivity, profile

from autoreid_fast.devices import DeviceName, choose_device
from autoreid_fast.nas.input_size import check_input_size
from autoreid_fast.ops import specs
from autoreid_fast.search import captured
from autoreid_fast.search.algorithm import Batch, SearchAlgorithm, build_algorithm
from autoreid_fast.search.config import SearchConfig, SupernetConfig
from autoreid_fast.training.config import BatchConfig

WARM_UP = captured.WARM_UP + 1
"""Pairs before the first timed one: the eager ones and the one that is captured."""

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
"""Families of operations: our ops, then torch's. An operation or kernel belongs to the first
family one of whose words occurs in its name."""
REST = "other arithmetic"


class ProfileConfig(BatchConfig, SupernetConfig):
    """Profile the search's step pair on random images: seconds, memory, and time per operation."""

    height: int = Field(384, ge=1, le=10_000, description="Image height in pixels (paper: 384).")
    width: int = Field(128, ge=1, le=10_000, description="Image width in pixels (paper: 128).")
    device: DeviceName = Field("auto", description="Device: auto (CUDA if available), cpu, cuda or cuda:N.")
    pairs: int = Field(3, ge=1, le=100_000, description="Step pairs to time.")

    def search_config(self) -> SearchConfig:
        """Config of the search whose steps are profiled."""
        values = {name: getattr(self, name) for name in SupernetConfig.model_fields}
        return SearchConfig.model_validate(values | {"device": self.device})


@dataclass(frozen=True)
class Operation:
    """One operation of a step pair.

    Attributes:
        name: Operation on the CPU, kernel on CUDA.
        family: Family it belongs to.
        calls: Number of calls.
        milliseconds: Its own time, without the operations that it called.
    """

    name: str
    family: str
    calls: int
    milliseconds: float


@dataclass(frozen=True)
class StepProfile:
    """Profile of one step pair.

    Attributes:
        device: Name of the device.
        batch: Images per batch.
        seconds: Median time of a pair without the profiler.
        launches: Kernels on CUDA; on the CPU, operators that take time of their own.
        peak_bytes: Peak of the allocator on CUDA; None on the CPU, where `bench supernet_step` measures it
            in a separate process.
        operations: Operations of one further pair, the longest first.
    """

    device: str
    batch: int
    seconds: float
    launches: int
    peak_bytes: int | None
    operations: tuple[Operation, ...]

    @property
    def families(self) -> dict[str, float]:
        """Milliseconds per family of operations, the largest first."""
        total: defaultdict[str, float] = defaultdict(float)
        for operation in self.operations:
            total[operation.family] += operation.milliseconds
        return dict(sorted(total.items(), key=lambda item: -item[1]))

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {**asdict(self), "families": self.families}


def family_of(name: str) -> str:
    """Return the family of an operation or a kernel."""
    lowered = name.lower()
    return next((family for family, words in FAMILIES if any(word in lowered for word in words)), REST)


def profile_step(config: ProfileConfig) -> StepProfile:
    """Time step pairs on random images, then profile one.

    Raises:
        AutoReIDError: device or sizes do not allow it.

    Examples:
        >>> from autoreid_fast.search.profile import ProfileConfig, profile_step
        >>> config = ProfileConfig(
        ...     channels=3, cells_per_block=(1, 1, 1, 1), height=112, width=16, identities=2, images=2
        ... )
        >>> profile = profile_step(config)
        >>> profile.batch, "mixed_op_sum" in profile.families
        (4, True)
    """
    search = config.search_config()
    device = choose_device(search.device)
    check_input_size(config.height, config.width, config.space, config.cells_per_block)
    torch.manual_seed(0)
    algorithm = build_algorithm(search, config.identities, device)
    algorithm.model.train()
    algorithm.set_epoch(0)
    pair = [_batch(config, device) for _ in range(2)]
    for _ in range(WARM_UP if device.type == "cuda" else 1):
        algorithm.step(*pair)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = [_seconds_of_step(algorithm, pair, device) for _ in range(config.pairs)]
    with profile(activities=_activities(device)) as profiler:
        _seconds_of_step(algorithm, pair, device)
    operations = _operations(profiler.key_averages(), device)
    return StepProfile(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        batch=config.size,
        seconds=statistics.median(seconds),
        launches=sum(operation.calls for operation in operations),
        peak_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        operations=operations,
    )


def _batch(config: ProfileConfig, device: torch.device) -> Batch:
    labels = torch.arange(config.identities, device=device).repeat_interleave(config.images)
    images = torch.randn(len(labels), 3, config.height, config.width, device=device)
    return images.contiguous(memory_format=torch.channels_last), labels


def _seconds_of_step(algorithm: SearchAlgorithm, pair: list[Batch], device: torch.device) -> float:
    start = time.perf_counter()
    algorithm.step(*pair)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _activities(device: torch.device) -> list[ProfilerActivity]:
    return [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])


def _operations(events: Iterable[Any], device: torch.device) -> tuple[Operation, ...]:
    """List what took time of its own on ``device``, the longest first."""
    cuda = device.type == "cuda"
    totals: dict[str, tuple[int, float]] = {}
    for event in events:
        if cuda and not str(event.device_type).endswith("CUDA"):
            continue
        microseconds = event.self_device_time_total if cuda else event.self_cpu_time_total
        name = _readable(event.key)
        if microseconds > 0 and not name.startswith("autograd::"):
            calls, before = totals.get(name, (0, 0.0))
            totals[name] = (max(calls, event.count), before + microseconds)
    return tuple(
        Operation(name, family_of(name), calls, microseconds / 1e3)
        for name, (calls, microseconds) in sorted(totals.items(), key=lambda item: -item[1][1])
    )


def _readable(name: str) -> str:
    """Name our ops: torch attributes a forward call's time to the wrapper of its autograd formula."""
    wrapper = "GeneratedBackwardFor_autoreid_fast_"
    if name.startswith(wrapper):
        inner = name.removeprefix(wrapper)
        op = inner.partition("_default")[0]
        return f"autoreid_fast::{op}" + ("_backward" if inner.endswith("Backward") else "")
    return name
