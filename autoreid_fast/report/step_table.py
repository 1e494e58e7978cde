"""A profiled search step as a table for the terminal."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from autoreid_fast.search.profile import StepProfile

MAX_ROWS = 24
"""Operations that have a row of their own; the others share one."""
MAX_NAME = 56


def step_table(profile: StepProfile) -> Table:
    """The longest operations of the step pair, with calls, milliseconds and percentages."""
    total = sum(operation.milliseconds for operation in profile.operations)
    table = Table(box=SIMPLE_HEAD, header_style="bold", title=profile_title(profile), title_justify="left")
    table.add_column("operation", overflow="fold")
    table.add_column("family", overflow="fold")
    for column in ("calls", "ms", "%"):
        table.add_column(column, justify="right", overflow="fold")
    shown, rest = profile.operations[:MAX_ROWS], profile.operations[MAX_ROWS:]
    rows = [
        (operation.name, operation.family, operation.calls, operation.milliseconds) for operation in shown
    ]
    if rest:
        calls = sum(operation.calls for operation in rest)
        rows.append((f"{len(rest)} more", "", calls, sum(operation.milliseconds for operation in rest)))
    for name, family, calls, milliseconds in rows:
        percent = 100 * milliseconds / total
        table.add_row(name[:MAX_NAME], family, str(calls), f"{milliseconds:.1f}", f"{percent:.1f}")
    return table


def profile_title(profile: StepProfile) -> str:
    """The step pair in one line: device, batch, time, launches, peak memory."""
    memory = "" if profile.peak_bytes is None else f", {profile.peak_bytes / 2**30:.2f} GiB"
    launched = "operators" if profile.device == "cpu" else "kernels"
    return (
        f"a step pair on {profile.device}, batch {profile.batch}: {1e3 * profile.seconds:.1f} ms, "
        f"{profile.launches:,} {launched}{memory}"
    )
