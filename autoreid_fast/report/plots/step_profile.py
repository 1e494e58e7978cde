"""Bar chart of a profiled search step."""

from matplotlib.figure import Figure

from autoreid_fast.report.plots.theme import new_figure, series_color, style
from autoreid_fast.report.step_table import profile_title
from autoreid_fast.search.profile import StepProfile

WIDTH, BAR_HEIGHT, MARGIN = 640, 26, 90


def step_figure(profile: StepProfile) -> Figure:
    """One bar per family of operations, the longest at the top."""
    families = profile.families
    total = sum(families.values())
    with style():
        figure = new_figure(WIDTH, MARGIN + BAR_HEIGHT * len(families))
        axes = figure.add_subplot()
        bars = axes.barh(list(families), list(families.values()), color=series_color(0), height=0.7)
        labels = [f"{value:.0f} ms, {100 * value / total:.0f} %" for value in families.values()]
        axes.bar_label(bars, labels, padding=4, size=10)
        axes.invert_yaxis()
        axes.set(title=profile_title(profile), xlim=(0, 1.25 * max(families.values())))
        axes.set_xlabel("self time in milliseconds, under the profiler")
        axes.grid(axis="y", visible=False)
        figure.tight_layout()
    return figure
