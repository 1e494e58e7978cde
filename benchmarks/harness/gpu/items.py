"""Work through a list of items before a deadline, with one results file written after every item."""

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from autoreid_fast.errors import describe_error
from autoreid_fast.files import write_json
from autoreid_fast.schema import Config

from ..results import Environment, environment
from ..support.limit import within

Figures = dict[str, Any]
"""JSON values that an item measured."""


@dataclass(frozen=True)
class Setting:
    """Where items run: the device, the folder for files, and toy sizes or those of the paper."""

    device: str
    toy: bool
    out: Path


@dataclass(frozen=True)
class Item:
    """One thing to measure or check.

    Attributes:
        name: Name in the results file.
        seconds: Seconds it may take: it is skipped if fewer are left, and stopped after that many.
        run: Returns the figures; it may raise anything.
    """

    name: str
    seconds: int
    run: Callable[[Setting], Figures]


class Outcome(Config):
    """Status, time and figures of one item."""

    name: str
    status: Literal["done", "failed", "skipped"]
    seconds: float = 0.0
    error: str | None = None
    figures: Figures = Field(default={})


class RunFile(Config):
    """The results file of one run."""

    run: str
    environment: Environment
    toy: bool
    outcomes: tuple[Outcome, ...] = ()


@dataclass
class Deadline:
    """The end of a run, by a clock that tests can replace."""

    seconds: float
    clock: Callable[[], float] = time.monotonic
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.clock()

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.seconds - (self.clock() - self.began)


def work_through(name: str, items: Sequence[Item], setting: Setting, deadline: Deadline) -> RunFile:
    """Run the items in order and write ``<out>/<name>.json`` after each; a failure costs one item only."""
    file = RunFile(run=name, environment=environment(set()), toy=setting.toy)
    for item in items:
        outcome = _outcome(item, setting, deadline)
        file = file.model_copy(update={"outcomes": (*file.outcomes, outcome)})
        write_json(setting.out / f"{name}.json", file.model_dump(mode="json"))
        print(f"{outcome.status:8} {outcome.seconds:6.1f} s  {item.name}  {outcome.error or ''}", flush=True)
    return file


def _outcome(item: Item, setting: Setting, deadline: Deadline) -> Outcome:
    left = deadline.left
    if left < item.seconds:
        error = f"needs {item.seconds} s, {max(left, 0):.0f} s left"
        return Outcome(name=item.name, status="skipped", error=error)
    began = time.perf_counter()
    try:
        with within(item.seconds):
            figures = item.run(setting)
        return Outcome(name=item.name, status="done", seconds=time.perf_counter() - began, figures=figures)
    except Exception as problem:  # kernels, tools and tests may fail in any way
        traceback.print_exc()
        seconds = time.perf_counter() - began
        return Outcome(name=item.name, status="failed", seconds=seconds, error=describe_error(problem))
