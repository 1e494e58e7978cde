"""The results as a table on the screen, 120 columns wide."""

from rich import box
from rich.console import Console
from rich.table import Table

from .results import Candidate, Environment, Results, Row

CAPTION = (
    "Times are medians; below ours, its 20th and 80th percentile, and on CUDA, g, its time as a CUDA graph. "
    "x: time over ours, so above 1 is slower; the floor's, on CUDA, over ours as a graph. "
    "floor: the least bytes or FLOPs at this machine's measured copy bandwidth or GEMM rate; what fits in a "
    "cache can beat a floor of bytes; below it, work that is part of the op, as it stands. peak: memory that "
    "one step takes, ours and twin (in large rows a peer's, too, behind its time). "
    "error: ours against the float64 twin, and what is allowed."
)
WIDTH = 120


def print_table(results: Results) -> None:
    """Print one row a variant, then what each note says and where it was measured."""
    console = Console(highlight=False, markup=False)
    console.width = min(WIDTH, console.width) if console.is_terminal else WIDTH
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("case", "ours", "twin", "compiled", "peer", "floor", "peak", "error"):
        table.add_column(name, justify="left" if name in ("case", "peer") else "right", no_wrap=True)
    for row in results.rows:
        table.add_row(*_cells(row))
    console.print(table)
    for row in results.rows:
        where = f"{row.case} {row.sizes_text} {row.dtype} {row.device}"
        if row.about is not None:
            console.print(f"{where}: {row.about}", soft_wrap=True)
        for name, candidate in {**row.candidates, **row.bounds}.items():
            if candidate.note is not None:
                console.print(f"{where}: {name}: {candidate.note}", soft_wrap=True)
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
    known = {"driver": environment.driver, "CUDA": environment.cuda, "triton": environment.triton}
    facts += [f"{name} {value}" for name, value in known.items() if environment.gpu and value]
    return ", ".join([*facts, f"commit {environment.commit or 'unknown'}", environment.date])


def _cells(row: Row) -> list[str]:
    ours, twin = row.candidates["ours"], row.candidates["twin"]
    own = "-"
    if ours.timing is not None:
        own = (
            f"{duration(ours.timing.median_s)}\n{duration(ours.timing.p20_s)}\n{duration(ours.timing.p80_s)}"
        )
    if ours.replayed is not None:
        own += f"\ng {duration(ours.replayed.median_s)}"
    compiled = _cell(row, "compiled") if "compiled" in row.candidates else "-"
    peers = [name for name in row.candidates if name not in ("ours", "twin", "compiled")]
    floor = f"{duration(row.floor.seconds)}\n"
    ratios = row.replay_ratios or row.ratios
    floor += f"{ratios['floor']:.2g}x {row.floor.bound}" if "floor" in ratios else row.floor.bound
    floor += "".join(f"\n{name}\n{_cell(row, name, ' ')}" for name in row.bounds)
    error = "-"
    if ours.parity is not None:
        shown = "not finite" if ours.parity.error is None else f"{ours.parity.error:.1e}"
        error = f"{'' if row.passed else 'FAILED '}{shown}\n{ours.parity.allowed:.1e}"
    case = row.case + (f"-{row.large}" if row.large else "") + (f" ({row.backend})" if row.backend else "")
    return [
        f"{case}\n{row.sizes_text}\n{row.dtype} {row.device}\n{row.step}",
        own,
        _cell(row, "twin"),
        compiled,
        "\n".join(f"{name}\n{_cell(row, name, ' ')}{_peak(row, name)}" for name in peers) or "-",
        floor,
        f"{_size(ours)}\n{_size(twin)}",
        error,
    ]


def _cell(row: Row, name: str, between: str = "\n") -> str:
    timing = {**row.candidates, **row.bounds}[name].timing
    return "-" if timing is None else f"{duration(timing.median_s)}{between}{row.ratios[name]:.2g}x"


def _peak(row: Row, name: str) -> str:
    """Of a peer in a large row; elsewhere only torch's allocations are known, and peers have others."""
    measured = row.large is not None and row.candidates[name].peak_bytes is not None
    return f" {_size(row.candidates[name])}" if measured else ""


def _size(candidate: Candidate) -> str:
    if candidate.peak_bytes is None:
        return "-"
    unit, scale = ("GiB", 2**30) if candidate.peak_bytes >= 2**30 else ("MiB", 2**20)
    return f"{candidate.peak_bytes / scale:.3g} {unit}"


def duration(seconds: float) -> str:
    """Seconds as text of three digits: ``12.3 us``."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
