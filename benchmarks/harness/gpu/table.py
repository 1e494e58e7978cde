"""A GPU's results as a short table, and the targets that they meet or miss."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..results import Row
from ..table import FIXED, duration
from .items import Figures

WIDTH = 110
PAIR = "step pair, source, captured, {}"
"""Name of the item of a precision."""
LARGE = 500_000_000
"""Bytes from which a kernel counts as memory-bound."""
PAIRS_PER_EPOCH = 12936 // 2 // 16
"""Step pairs of a search on Market-1501: half of its 12,936 training images in batches of 16."""


def lines(rows: Sequence[Row], figures: Mapping[str, Figures]) -> list[str]:
    """The table, one line per row, and the targets, which some items' ``figures`` meet or miss."""
    heads = ("case", "ours", "graph", "of floor", "eager", "compiled", "best other", "error")
    shape = "{:<46} {:>8} {:>8} {:>8} {:>7} {:>8} {:>10}  {}"
    table = [shape.format(*heads)]
    for row in rows:
        name = f"{row.case}{'-' + row.large if row.large else ''} {row.sizes_text} {row.dtype}"
        table.append(shape.format(name[:46], *_entries(row)).rstrip())
    return [*table, "", *(target.line(rows, figures) for target in TARGETS), *_projected(figures)]


def _entries(row: Row) -> tuple[str, ...]:
    ours = row.candidates["ours"]
    ratios = row.replay_ratios or row.ratios
    peers = [name for name in row.candidates if name not in FIXED]
    best = min((ratios[name] for name in peers if name in ratios), default=None)
    error = "-" if ours.parity is None or ours.parity.error is None else f"{ours.parity.error:.0e}"
    return (
        "-" if ours.timing is None else duration(ours.timing.median_s),
        "-" if ours.replayed is None else duration(ours.replayed.median_s),
        f"{100 * ratios['floor']:.0f} %" if "floor" in ratios else "-",
        _times(ratios.get("reference")),
        _times(ratios.get("compiled")),
        _times(best),
        error if row.passed else f"FAILED {error}",
    )


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2g}x"


@dataclass(frozen=True)
class Target:
    """A number to reach.

    Attributes:
        text: Its line in the table.
        values: The measured values, from the rows and the figures of the other items.
        limit: The largest value that meets it; the smallest where ``at_least``.
        unit: Unit of the values.
    """

    text: str
    values: Callable[[Sequence[Row], Mapping[str, Figures]], list[float]]
    limit: float
    unit: str
    at_least: bool = False

    def line(self, rows: Sequence[Row], figures: Mapping[str, Figures]) -> str:
        """Met, not met, or not measured; it is met if all values meet it."""
        values = self.values(rows, figures)
        if not values:
            return f"target  {self.text}: not measured"
        failed = [value for value in values if (value < self.limit if self.at_least else value > self.limit)]
        shown = ", ".join(f"{value:.3g}{self.unit}" for value in (failed or values))
        count = f" in {len(failed)} of {len(values)} rows" if failed and len(values) > 1 else ""
        return f"target  {self.text}: {'NOT met' if failed else 'met'}{count}: {shown}"


def _milliseconds(item: str) -> Callable[[Sequence[Row], Mapping[str, Figures]], list[float]]:
    return lambda rows, figures: [1e3 * figures[item]["seconds"]] if item in figures else []


def _batch_hard(rows: Sequence[Row], figures: Mapping[str, Figures]) -> list[float]:
    """Microseconds of the replay at N=64, D=2048."""
    replays = [
        row.candidates["ours"].replayed
        for row in rows
        if row.case == "batch_hard" and row.sizes == {"N": 64, "D": 2048}
    ]
    return [1e6 * replay.median_s for replay in replays if replay is not None]


def _bandwidth(rows: Sequence[Row], figures: Mapping[str, Figures]) -> list[float]:
    """Percent of the copy bandwidth, of the replays that are bound by it and move enough bytes."""
    return [
        100 * row.replay_ratios["floor"]
        for row in rows
        if row.floor.bound == "bytes" and row.floor.bytes >= LARGE and "floor" in row.replay_ratios
    ]


TARGETS = (
    Target("step pair, float32: at most 11 ms", _milliseconds(PAIR.format("float32")), 11, " ms"),
    Target("step pair, bfloat16: at most 8 ms", _milliseconds(PAIR.format("bfloat16")), 8, " ms"),
    Target("evaluation of MSMT17's shape: at most 10 ms", _milliseconds("evaluation"), 10, " ms"),
    Target("batch_hard, N=64, D=2048, as a graph: at most 12 us", _batch_hard, 12, " us"),
    Target("re-ranking 93,820 images: at most 300 ms", _milliseconds("re-ranking"), 300, " ms"),
    Target("memory-bound kernels: 80 % of the copy bandwidth", _bandwidth, 80, " %", at_least=True),
)


def _projected(figures: Mapping[str, Figures]) -> list[str]:
    """Time of the paper's search, from that of one step pair."""
    return [
        f"200 epochs on Market-1501, {PAIRS_PER_EPOCH} pairs each, at {pair:.3g} ms: "
        f"{200 * PAIRS_PER_EPOCH * pair / 60e3:.3g} minutes"
        for pair in _milliseconds(PAIR.format("float32"))([], figures)
    ]
