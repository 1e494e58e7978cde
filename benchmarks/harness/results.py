"""The results of a benchmark run, as they stand in its JSON file."""

import datetime
import importlib.metadata
import platform
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from autoreid_fast.runs.folder import cpu_model
from autoreid_fast.schema import Config


class Parity(Config):
    """How far a result is from the float64 twin's."""

    error: float | None = Field(
        description="the largest difference, relative to the tensor's largest element, over all outputs and "
        "gradients; null where it is not a finite number or the shapes differ"
    )
    allowed: float = Field(description="the case's tolerance plus twice the twin's own error in this dtype")

    @property
    def passed(self) -> bool:
        return self.error is not None and self.error <= self.allowed


class Timing(Config):
    """Seconds a step over the samples of all rounds; a sample is the mean of ``calls`` steps in a row."""

    median_s: float
    p20_s: float
    p80_s: float
    samples: int
    calls: int

    @classmethod
    def of(cls, seconds: Sequence[float], calls: int = 1) -> "Timing":
        """The figures of these samples."""
        fifths = statistics.quantiles(seconds, n=5, method="inclusive") if len(seconds) > 1 else seconds
        return cls(
            median_s=statistics.median(seconds),
            p20_s=fifths[0],
            p80_s=fifths[-1],
            samples=len(seconds),
            calls=calls,
        )


class Candidate(Config):
    """One implementation in a row: ours, the twin, the compiled twin or a peer; or a bound."""

    parity: Parity | None = Field(default=None, description="null where it did not run")
    timing: Timing | None = Field(default=None, description="null without parity: of this one, or of ours")
    replayed: Timing | None = Field(
        default=None,
        description="on CUDA the same step replayed from a CUDA graph: the device's time without the host's; "
        "null where the step waits for the host, or the replay is off parity",
    )
    peak_bytes: int | None = Field(
        default=None,
        description="peak of what one step takes, its results included, its inputs not: allocations through "
        "torch; in a large row the rise of the process' resident memory to its highest",
    )
    note: str | None = Field(default=None, description="why there is no timing")


class Floor(Config):
    """The time that the least work takes at this machine's measured rates."""

    bytes: int
    flops: int
    copy_bytes_per_s: float = Field(description="of a copy far larger than the caches: read plus written")
    gemm_flops_per_s: float = Field(description="of a large square matrix product in the row's dtype")
    seconds: float
    bound: Literal["bytes", "flops"]


class Row(Config):
    """One variant of one case."""

    case: str
    sizes: dict[str, int]
    large: str | None = Field(default=None, description="of a large row, its name")
    dtype: str
    device: str
    step: Literal["forward", "forward+backward"]
    backend: str | None = Field(description="what ours ran on, native or reference; null if it is not one op")
    candidates: dict[str, Candidate] = Field(
        description="ours, twin, compiled where a twin compiles, then the peers by package"
    )
    bounds: dict[str, Candidate] = Field(
        description="work that is part of every implementation, or of a family of them, timed as it stands"
    )
    floor: Floor
    ratios: dict[str, float] = Field(
        description="seconds of each other candidate, each bound and the floor, over seconds of ours"
    )
    replay_ratios: dict[str, float] = Field(
        default={}, description="seconds of each other replay and the floor, over seconds of ours replayed"
    )
    about: str | None = Field(default=None, description="what there is to know about the inputs")

    @property
    def passed(self) -> bool:
        parity = self.candidates["ours"].parity
        return parity is not None and parity.passed

    @property
    def sizes_text(self) -> str:
        return " ".join(f"{name}={size}" for name, size in self.sizes.items())


class Environment(Config):
    """Where and on what the rows were measured."""

    date: str = Field(description="UTC, ISO 8601")
    commit: str | None = Field(description="of the checkout that holds the package; -dirty: with changes")
    package: str
    python: str
    torch: str
    cpu: str
    threads: int = Field(description="torch's intra-op threads")
    gpu: str | None
    driver: str | None = Field(default=None, description="NVIDIA's, with a GPU")
    cuda: str | None = Field(default=None, description="of torch; null for a CPU build")
    triton: str | None = Field(default=None, description="null where it is not installed")
    peers: dict[str, str] = Field(description="versions of the peers that are installed")


class Results(Config):
    """A whole run."""

    environment: Environment
    rows: tuple[Row, ...]


def environment(peers: set[str]) -> Environment:
    """Describe this process; ``peers`` are the packages whose versions to give."""
    versions = {name: found for name in sorted(peers) if (found := _version(name)) is not None}
    return Environment(
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        commit=_commit(),
        package=importlib.metadata.version("autoreid_fast"),
        python=platform.python_version(),
        torch=torch.__version__,
        cpu=cpu_model(),
        threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        driver=_driver() if torch.cuda.is_available() else None,
        cuda=torch.version.cuda,
        triton=_version("triton"),
        peers=versions,
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _driver() -> str | None:
    """As nvidia-smi has it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None


def _commit() -> str | None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        git(
            "ls-files", "--error-unmatch", Path(__file__).name
        )  # an installed copy may lie in another's checkout
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
