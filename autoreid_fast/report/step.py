"""A profiled step pair as a table and as a bar picture."""

from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.table import Table

from autoreid_fast.report.theme import new_figure, series, style
from autoreid_fast.search.profile import StepProfile

WIDTH, BAR_HEIGHT, MARGIN = 640, 26, 90
LARGEST = 24
"""Operations in the table; the rest is one line."""


def step_table(profiled: StepProfile) -> Table:
    """The longest operations of the pair, with calls, milliseconds and shares."""
    total = sum(operation.milliseconds for operation in profiled.operations)
    table = Table(box=SIMPLE_HEAD, header_style="bold", title=headline(profiled), title_justify="left")
    for column, side in (("operation", "left"), ("family", "left"), ("calls", "right"), ("ms", "right")):
        table.add_column(column, justify=side, overflow="fold")  # type: ignore[arg-type]
    table.add_column("%", justify="right")
    shown, rest = profiled.operations[:LARGEST], profiled.operations[LARGEST:]
    rows = [(each.name, each.family, each.calls, each.milliseconds) for each in shown]
    if rest:
        left = (sum(each.calls for each in rest), sum(each.milliseconds for each in rest))
        rows.append((f"{len(rest)} more", "", *left))
    for name, family, calls, milliseconds in rows:
        table.add_row(
            name[:56], family, str(calls), f"{milliseconds:.1f}", f"{100 * milliseconds / total:.1f}"
        )
    return table


def headline(profiled: StepProfile) -> str:
    """The pair in a line."""
    memory = "" if profiled.peak_bytes is None else f", {profiled.peak_bytes / 2**30:.2f} GiB"
    what = "operators" if profiled.device == "cpu" else "kernels"
    return (
        f"a step pair on {profiled.device}, batch {profiled.batch}: {1e3 * profiled.seconds:.1f} ms, "
        f"{profiled.launches:,} {what}{memory}"
    )


def step_figure(profiled: StepProfile) -> Figure:
    """A bar for each family of operations, the longest on top."""
    families = profiled.families
    total = sum(families.values())
    with style():
        figure = new_figure(WIDTH, MARGIN + BAR_HEIGHT * len(families))
        axes = figure.add_subplot()
        bars = axes.barh(list(families), list(families.values()), color=series(0), height=0.7)
        labels = [f"{value:.0f} ms, {100 * value / total:.0f} %" for value in families.values()]
        axes.bar_label(bars, labels, padding=4, size=10)
        axes.invert_yaxis()
        axes.set(title=headline(profiled), xlim=(0, 1.25 * max(families.values())))
        axes.set_xlabel("milliseconds of their own, under the profiler")
        axes.grid(axis="y", visible=False)
        figure.tight_layout()
    return figure
