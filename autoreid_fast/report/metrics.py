"""Retrieval metrics and times of runs as text."""

from collections.abc import Mapping
from typing import Any

from autoreid_fast.progress import duration
from autoreid_fast.report.run_view import RunView

RETRIEVAL_METRICS = {
    "rank1": "rank-1, %",
    "rank5": "rank-5, %",
    "rank10": "rank-10, %",
    "mAP": "mAP, %",
    "mAP_trapezoid": "mAP (trapezoid), %",
    "mINP": "mINP, %",
}
"""Labels of the metrics that ``metrics.json`` holds as fractions and reports show in per cent."""


def percent(metrics: Mapping[str, Any], name: str) -> str:
    """A metric in per cent; empty if it is missing."""
    return f"{100 * metrics[name]:.1f}" if name in metrics else ""


def training_time(run: RunView) -> str:
    """Duration of all epochs so far, for instance "3 min 20 s"."""
    return duration(sum(record.get("seconds", 0) for record in run.history))
