"""A GPU's rows as a short table, and the targets with whether they are met."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .results import Candidate, Row
from .table import duration

WIDTH = 110
PAIRS_AN_EPOCH = 12936 // 2 // 16
"""Of a search on Market-1501: half of its 12,936 training images in batches of 16."""


def lines(rows: Sequence[Row]) -> list[str]:
    """The table, one line a row, and the targets."""
    heads = ("case", "ours", "graph", "of floor", "eager", "compiled", "best other", "error")
    shape = "{:<46} {:>8} {:>8} {:>8} {:>7} {:>8} {:>10}  {}"
    table = [shape.format(*heads)]
    for row in rows:
        name = f"{row.case}{'-' + row.large if row.large else ''} {row.sizes_text} {row.dtype}"
        table.append(shape.format(name[:46], *_cells(row)).rstrip())
    return [*table, "", *(target.line(rows) for target in TARGETS), *_projected(rows)]


def _cells(row: Row) -> tuple[str, ...]:
    ours = row.candidates["ours"]
    ratios = row.replay_ratios or row.ratios
    others = [name for name in row.candidates if name not in ("ours", "twin", "compiled")]
    best = min((ratios[name] for name in others if name in ratios), default=None)
    error = "-" if ours.parity is None or ours.parity.error is None else f"{ours.parity.error:.0e}"
    return (
        "-" if ours.timing is None else duration(ours.timing.median_s),
        "-" if ours.replayed is None else duration(ours.replayed.median_s),
        f"{100 * ratios['floor']:.0f} %" if "floor" in ratios else "-",
        _times(ratios.get("twin")),
        _times(ratios.get("compiled")),
        _times(best),
        error if row.passed else f"FAILED {error}",
    )


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2g}x"


@dataclass(frozen=True)
class Target:
    """A number to beat: what it is of, and how it is read off a row; None where the row does not say."""

    text: str
    of: Callable[[Row], bool]
    figure: Callable[[Row], float | None]
    met: Callable[[float], bool]
    unit: str = ""

    def line(self, rows: Iterable[Row]) -> str:
        """Met, not met, or not measured; of several rows the worst decides."""
        found = [figure for row in rows if self.of(row) and (figure := self.figure(row)) is not None]
        if not found:
            return f"target  {self.text}: not measured"
        failed = [figure for figure in found if not self.met(figure)]
        shown = ", ".join(f"{figure:.3g}{self.unit}" for figure in (failed or found))
        count = f" in {len(failed)} of {len(found)} rows" if failed and len(found) > 1 else ""
        return f"target  {self.text}: {'NOT met' if failed else 'met'}{count}: {shown}"


def _seconds(row: Row, name: str) -> float | None:
    each: Candidate | None = {**row.candidates, **row.bounds}.get(name)
    return None if each is None or each.timing is None else each.timing.median_s


def _over(row: Row, name: str, base: str) -> float | None:
    above, below = _seconds(row, name), _seconds(row, base)
    return None if above is None or below is None else above / below


def _pair(row: Row) -> bool:
    return row.case == "supernet_step" and (row.sizes["C"], row.sizes["N"]) == (32, 16)


def _captured_ms(row: Row) -> float | None:
    seconds = _seconds(row, "captured")
    return None if seconds is None else 1e3 * seconds


def _replayed_us(row: Row) -> float | None:
    replayed = row.candidates["ours"].replayed
    return None if replayed is None else 1e6 * replayed.median_s


def _share_of_bandwidth(row: Row) -> float | None:
    return 100 * row.replay_ratios["floor"] if "floor" in row.replay_ratios else None


TARGETS = (
    Target(
        "step pair, C=32, 384x128, batch 16: at most 11 ms", _pair, _captured_ms, lambda x: x <= 11, " ms"
    ),
    Target(
        "step pair: 10 x as fast as eager",
        _pair,
        lambda row: _over(row, "twin", "captured"),
        lambda x: x >= 10,
    ),
    Target(
        "step pair: 3 x as fast as torch.compile",
        _pair,
        lambda row: _over(row, "compiled by edge", "captured"),
        lambda x: x >= 3,
    ),
    Target(
        "memory-bound kernels: 80 % of the copy bandwidth",
        lambda row: row.floor.bound == "bytes" and row.large is None and row.case != "batch_hard",
        _share_of_bandwidth,
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
        lambda row: _over(row, "ours", "torch.mm"),
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
    """The search of the paper, at the pace of the step pair alone."""
    paces = [seconds for row in rows if _pair(row) and (seconds := _seconds(row, "captured")) is not None]
    return [
        f"200 epochs on Market-1501, {PAIRS_AN_EPOCH} pairs each, at {1e3 * pace:.3g} ms: "
        f"{200 * PAIRS_AN_EPOCH * pace / 60:.3g} minutes"
        for pace in paces
    ]
