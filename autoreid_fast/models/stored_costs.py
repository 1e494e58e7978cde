"""Costs of the built-in networks at the sizes of Table 1, stored because counting them takes seconds.

A test compares them with `models.costs.costs`. After changing a network, write them again:
`python -m autoreid_fast.models.stored_costs`.
"""

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

from autoreid_fast.files import write_json
from autoreid_fast.models.costs import StageCosts, costs
from autoreid_fast.models.registry import BACKBONES, build_backbone

_FILE = Path(__file__).with_suffix(".json")


@cache
def stored_costs() -> dict[str, StageCosts]:
    """Total costs by network, as `costs` counts them at its default sizes.

    Examples:
        >>> round(stored_costs()["resnet50"].params_M, 1)
        25.0
    """
    stored = json.loads(_FILE.read_text(encoding="utf-8"))
    return {name: StageCosts(name="total", **values) for name, values in stored.items()}


def count_all() -> dict[str, StageCosts]:
    """Count what `stored_costs` holds."""
    return {name: costs(build_backbone(name)).total for name in BACKBONES.names()}


if __name__ == "__main__":
    values = {name: asdict(total) for name, total in count_all().items()}
    for total in values.values():
        del total["name"]
    write_json(_FILE, values)
