"""Results of a benchmark run, as its JSON file holds them."""

import datetime
import importlib.metadata
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, field_validator

from autoreid_fast.runs.environment import cpu_model
from autoreid_fast.schema import Config


class Parity(Config):
    """Error of a result against the reference in float64."""

    error: float | None = Field(
        description="the largest difference, relative to the tensor's largest element, over all outputs and "
        "gradients; null where it is not finite, or shapes or dtypes differ"
    )
    allowed: float = Field(description="the case's tolerance plus twice the reference's own error")

    @property
    def passed(self) -> bool:
        """Whether the error is within what is allowed."""
        return self.error is not None and self.error <= self.allowed


class Timing(Config):
    """Seconds per step over the samples of all rounds; a sample is the mean of ``calls`` steps in a row."""

    median_s: float
    p20_s: float
    p80_s: float
    samples: int
    calls: int

    @classmethod
    def of(cls, seconds: Sequence[float], calls: int = 1) -> "Timing":
        """Median and 20th and 80th percentile of the samples."""
        fifths = statistics.quantiles(seconds, n=5, method="inclusive") if len(seconds) > 1 else seconds
        return cls(
            median_s=statistics.median(seconds),
            p20_s=fifths[0],
            p80_s=fifths[-1],
            samples=len(seconds),
            calls=calls,
        )


class Candidate(Config):
    """One implementation in a row: ours, the reference, the compiled reference or a peer; or a bound."""

    parity: Parity | None = Field(default=None, description="null where it did not run")
    timing: Timing | None = Field(default=None, description="null where this candidate or ours has no parity")
    replayed: Timing | None = Field(
        default=None,
        description="on CUDA the same step replayed from a CUDA graph: the device's time without the host's; "
        "null where the step waits for the host, or the replay has no parity",
    )
    peak_bytes: int | None = Field(
        default=None,
        description="peak memory of one step, with its results and without its inputs: allocations through "
        "torch; in a large row the growth of the process' resident memory to its peak",
    )
    note: str | None = Field(default=None, description="why there is no timing")


class Floor(Config):
    """Time of the least work at this machine's measured rates."""

    bytes: int
    flops: int
    copy_bytes_per_s: float = Field(description="of a copy much larger than the caches: read plus written")
    gemm_flops_per_s: float = Field(description="of a large square matrix product in the row's dtype")
    seconds: float
    bound: Literal["bytes", "flops"]


class Row(Config):
    """Results of one variant of a case."""

    case: str
    sizes: dict[str, int]
    large: str | None = Field(default=None, description="name of the large variant")
    dtype: str
    device: str
    step: Literal["forward", "forward+backward"]
    backend: str | None = Field(
        description="backend of ours: native or reference; null if the case is not one op"
    )
    candidates: dict[str, Candidate] = Field(
        description="ours, reference, compiled if the reference compiles, then the peers by package"
    )
    bounds: dict[str, Candidate] = Field(
        description="work that every implementation, or a family of them, must do, timed by itself"
    )
    floor: Floor
    ratios: dict[str, float] = Field(
        description="seconds of each other candidate, each bound and the floor, divided by those of ours"
    )
    replay_ratios: dict[str, float] = Field(
        default={}, description="seconds of each other replay and the floor, divided by those of our replay"
    )
    about: str | None = Field(default=None, description="a remark on the inputs")

    @field_validator("candidates", "ratios", "replay_ratios", mode="before")
    @classmethod
    def _renamed(cls, value: Mapping[str, Any]) -> dict[str, Any]:
        """Rename the candidate that older files call "twin" to "reference"."""
        return {"reference" if name == "twin" else name: entry for name, entry in value.items()}

    @property
    def passed(self) -> bool:
        """Whether ours has parity."""
        parity = self.candidates["ours"].parity
        return parity is not None and parity.passed

    @property
    def sizes_text(self) -> str:
        """The sizes in one line: ``N=64 D=2048``."""
        return " ".join(f"{name}={size}" for name, size in self.sizes.items())


class Environment(Config):
    """Machine and versions that rows were measured with."""

    date: str = Field(description="UTC, ISO 8601")
    commit: str | None = Field(
        description="of the checkout with the package; -dirty: with uncommitted changes"
    )
    package: str
    python: str
    torch: str
    cpu: str
    threads: int = Field(description="torch's intra-op threads")
    gpu: str | None
    driver: str | None = Field(default=None, description="NVIDIA's, with a GPU")
    cuda: str | None = Field(default=None, description="of torch; null for a CPU build")
    triton: str | None = Field(default=None, description="null: not installed")
    peers: dict[str, str] = Field(description="versions of the peers that are installed")


class Results(Config):
    """All rows of a run."""

    environment: Environment
    rows: tuple[Row, ...]


def environment(peers: set[str]) -> Environment:
    """Describe this process, with the versions of the packages ``peers``."""
    versions = {name: version for name in sorted(peers) if (version := _version(name)) is not None}
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
    """Driver version that nvidia-smi prints."""
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
        # fails for an installed copy inside the checkout of another project
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD") + ("-dirty" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
