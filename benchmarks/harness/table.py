"""The results as a table on the screen, 120 columns wide."""

from rich import box
from rich.console import Console
from rich.table import Table

from .results import Candidate, Environment, Results, Row

CAPTION = (
    "Times are medians; below ours, its 20th and 80th percentile and, on CUDA, g: its time as a CUDA graph. "
    "x: time divided by ours; above 1 is slower. On CUDA the floor is compared with ours as a graph. "
    "floor: least bytes or FLOPs at this machine's measured copy bandwidth or GEMM rate (data that fits in a "
    "cache can be faster than a floor of bytes); below it, work that is part of the op, timed by itself. "
    "peak: memory that one step takes, of ours and the reference; in large rows a peer's follows its time. "
    "error: ours against the reference in float64, and the allowed error."
)
WIDTH = 120
FIXED = ("ours", "reference", "compiled")
"""Candidates with a column of their own; all others are peers."""


def print_table(results: Results) -> None:
    """Print one row per variant, the remarks and notes, and the machine."""
    console = Console(highlight=False, markup=False)
    console.width = min(WIDTH, console.width) if console.is_terminal else WIDTH
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("case", *FIXED, "peer", "floor", "peak", "error"):
        table.add_column(name, justify="left" if name in ("case", "peer") else "right", no_wrap=True)
    for row in results.rows:
        table.add_row(*_entries(row))
    console.print(table)
    for row in results.rows:
        title = f"{row.case} {row.sizes_text} {row.dtype} {row.device}"
        if row.about is not None:
            console.print(f"{title}: {row.about}", soft_wrap=True)
        for name, candidate in {**row.candidates, **row.bounds}.items():
            if candidate.note is not None:
                console.print(f"{title}: {name}: {candidate.note}", soft_wrap=True)
    console.print(CAPTION, style="dim")
    console.print(_facts(results.environment), style="dim")


def _facts(environment: Environment) -> str:
    versions = {
        "autoreid_fast": environment.package,
        "torch": environment.torch,
        "python": environment.python,
        **environment.peers,
    }
    facts = [f"{name} {version}" for name, version in versions.items()]
    facts += [environment.cpu, f"threads {environment.threads}", environment.gpu or "no GPU"]
    gpu_versions = {"driver": environment.driver, "CUDA": environment.cuda, "triton": environment.triton}
    facts += [f"{name} {version}" for name, version in gpu_versions.items() if environment.gpu and version]
    return ", ".join([*facts, f"commit {environment.commit or 'unknown'}", environment.date])


def _entries(row: Row) -> list[str]:
    ours, reference = row.candidates["ours"], row.candidates["reference"]
    compiled = _entry(row, "compiled") if "compiled" in row.candidates else "-"
    peers = [name for name in row.candidates if name not in FIXED]
    case = row.case + (f"-{row.large}" if row.large else "") + (f" ({row.backend})" if row.backend else "")
    return [
        f"{case}\n{row.sizes_text}\n{row.dtype} {row.device}\n{row.step}",
        _ours(ours),
        _entry(row, "reference"),
        compiled,
        "\n".join(f"{name}\n{_entry(row, name, ' ')}{_peak(row, name)}" for name in peers) or "-",
        _floor(row),
        f"{_size(ours)}\n{_size(reference)}",
        _error(row),
    ]


def _ours(ours: Candidate) -> str:
    text = "-"
    if ours.timing is not None:
        timing = ours.timing
        text = "\n".join(duration(seconds) for seconds in (timing.median_s, timing.p20_s, timing.p80_s))
    if ours.replayed is not None:
        text += f"\ng {duration(ours.replayed.median_s)}"
    return text


def _floor(row: Row) -> str:
    ratios = row.replay_ratios or row.ratios
    text = f"{duration(row.floor.seconds)}\n"
    text += f"{ratios['floor']:.2g}x {row.floor.bound}" if "floor" in ratios else row.floor.bound
    return text + "".join(f"\n{name}\n{_entry(row, name, ' ')}" for name in row.bounds)


def _error(row: Row) -> str:
    parity = row.candidates["ours"].parity
    if parity is None:
        return "FAILED"
    shown = "not finite" if parity.error is None else f"{parity.error:.1e}"
    return f"{'' if row.passed else 'FAILED '}{shown}\n{parity.allowed:.1e}"


def _entry(row: Row, name: str, separator: str = "\n") -> str:
    timing = {**row.candidates, **row.bounds}[name].timing
    return "-" if timing is None else f"{duration(timing.median_s)}{separator}{row.ratios[name]:.2g}x"


def _peak(row: Row, name: str) -> str:
    """Peak of a peer in a large row; in others only allocations through torch are known."""
    measured = row.large is not None and row.candidates[name].peak_bytes is not None
    return f" {_size(row.candidates[name])}" if measured else ""


def _size(candidate: Candidate) -> str:
    if candidate.peak_bytes is None:
        return "-"
    unit, scale = ("GiB", 2**30) if candidate.peak_bytes >= 2**30 else ("MiB", 2**20)
    return f"{candidate.peak_bytes / scale:.3g} {unit}"


def duration(seconds: float) -> str:
    """Seconds with a unit and three significant digits: ``12.3 us``."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
