"""A GPU's results as a short table, and the targets that they meet or miss."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ..results import Candidate, Row
from ..table import FIXED, duration

WIDTH = 110
PAIRS_PER_EPOCH = 12936 // 2 // 16
"""Step pairs of a search on Market-1501: half of its 12,936 training images in batches of 16."""


def lines(rows: Sequence[Row]) -> list[str]:
    """The table, one line per row, and the targets."""
    heads = ("case", "ours", "graph", "of floor", "eager", "compiled", "best other", "error")
    shape = "{:<46} {:>8} {:>8} {:>8} {:>7} {:>8} {:>10}  {}"
    table = [shape.format(*heads)]
    for row in rows:
        name = f"{row.case}{'-' + row.large if row.large else ''} {row.sizes_text} {row.dtype}"
        table.append(shape.format(name[:46], *_entries(row)).rstrip())
    return [*table, "", *(target.line(rows) for target in TARGETS), *_projected(rows)]


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
    """A number to reach."""

    text: str
    applies: Callable[[Row], bool]
    value: Callable[[Row], float | None]
    """Its value in a row; None where the row was not measured that far."""
    met: Callable[[float], bool]
    unit: str = ""

    def line(self, rows: Iterable[Row]) -> str:
        """Met, not met, or not measured; it is met if all rows meet it."""
        values = [value for row in rows if self.applies(row) and (value := self.value(row)) is not None]
        if not values:
            return f"target  {self.text}: not measured"
        failed = [value for value in values if not self.met(value)]
        shown = ", ".join(f"{value:.3g}{self.unit}" for value in (failed or values))
        count = f" in {len(failed)} of {len(values)} rows" if failed and len(values) > 1 else ""
        return f"target  {self.text}: {'NOT met' if failed else 'met'}{count}: {shown}"


def _seconds(row: Row, name: str) -> float | None:
    candidate: Candidate | None = {**row.candidates, **row.bounds}.get(name)
    return None if candidate is None or candidate.timing is None else candidate.timing.median_s


def _ratio(row: Row, name: str, base: str) -> float | None:
    seconds, base_seconds = _seconds(row, name), _seconds(row, base)
    return None if seconds is None or base_seconds is None else seconds / base_seconds


def _pair(row: Row) -> bool:
    return row.case == "supernet_step" and (row.sizes["C"], row.sizes["N"]) == (32, 16)


def _captured_ms(row: Row) -> float | None:
    seconds = _seconds(row, "captured")
    return None if seconds is None else 1e3 * seconds


def _replayed_us(row: Row) -> float | None:
    replayed = row.candidates["ours"].replayed
    return None if replayed is None else 1e6 * replayed.median_s


def _bandwidth_percent(row: Row) -> float | None:
    return 100 * row.replay_ratios["floor"] if "floor" in row.replay_ratios else None


TARGETS = (
    Target(
        "step pair, C=32, 384x128, batch 16: at most 11 ms", _pair, _captured_ms, lambda x: x <= 11, " ms"
    ),
    Target(
        "step pair: 10 x as fast as eager",
        _pair,
        lambda row: _ratio(row, "reference", "captured"),
        lambda x: x >= 10,
    ),
    Target(
        "step pair: 3 x as fast as torch.compile",
        _pair,
        lambda row: _ratio(row, "compiled by edge", "captured"),
        lambda x: x >= 3,
    ),
    Target(
        "memory-bound kernels: 80 % of the copy bandwidth",
        lambda row: row.floor.bound == "bytes" and row.large is None and row.case != "batch_hard",
        _bandwidth_percent,
        lambda x: x >= 80,
        " %",
    ),
    Target(
        "batch_hard, N=64, D=2048, forward and backward: at most 30 us",
        lambda row: row.case == "batch_hard" and row.sizes == {"N": 64, "D": 2048},
        _replayed_us,
        lambda x: x <= 30,
        " us",
    ),
    Target(
        "evaluation of MSMT17's shape: at most 1.3 x its GEMM",
        lambda row: (row.case, row.large) == ("rank_gallery", "msmt17"),
        lambda row: _ratio(row, "ours", "torch.mm"),
        lambda x: x <= 1.3,
    ),
    Target(
        "re-ranking of MSMT17's size: in seconds",
        lambda row: (row.case, row.large) == ("k_reciprocal", "msmt17"),
        lambda row: _seconds(row, "ours"),
        lambda x: x < 10,
        " s",
    ),
)


def _projected(rows: Iterable[Row]) -> list[str]:
    """Time of the paper's search, from that of one step pair."""
    pairs = [seconds for row in rows if _pair(row) and (seconds := _seconds(row, "captured")) is not None]
    return [
        f"200 epochs on Market-1501, {PAIRS_PER_EPOCH} pairs each, at {1e3 * seconds:.3g} ms: "
        f"{200 * PAIRS_PER_EPOCH * seconds / 60:.3g} minutes"
        for seconds in pairs
    ]
