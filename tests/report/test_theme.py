"""Figures are drawn without warnings, whatever the names in them."""

import warnings
from pathlib import Path

from autoreid_fast.report.plots.curves import line_chart
from autoreid_fast.report.plots.theme import Drawing


def test_matplotlib_does_not_warn_about_names(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawing = Drawing(
            line_chart("\u4eba\u7269 \U0001f6b6", {"\u0e04\u0e19": ([1, 2], [0.5, 0.6])}, "\u4f60")
        )
        drawing.save(tmp_path, "names")
        assert drawing.inline("names", "names")
    assert (tmp_path / "names.png").stat().st_size > 1000
