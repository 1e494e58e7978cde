"""Built-in things are found by their files, and named where people look for them."""

import re
from pathlib import Path
from typing import Any

from autoreid_fast.data.config import DATASETS
from autoreid_fast.losses import ObjectiveConfig
from autoreid_fast.losses.registry import LOSSES
from autoreid_fast.models.registry import BACKBONES
from autoreid_fast.models.stored_costs import stored_costs
from autoreid_fast.registry import Registry
from autoreid_fast.search.config import SEARCH_ALGORITHMS, SearchConfig

ROOT = Path(__file__).resolve().parents[2]
DECORATOR = re.compile(r'^@register_\w+\("([^"]+)"\)', re.MULTILINE)


def builtin(registry: Registry[Any]) -> set[str]:
    return {entry.name for entry in registry.entries() if not entry.own}


def registered_in(folder: str) -> set[str]:
    """Names in the decorators of the files of a folder."""
    paths = (ROOT / "autoreid_fast" / folder).glob("*.py")
    return {name for path in paths for name in DECORATOR.findall(path.read_text(encoding="utf-8"))}


def unnamed(names: set[str], text: str | None) -> set[str]:
    return {name for name in names if name not in (text or "")}


def test_every_reader_and_algorithm_is_registered() -> None:
    assert builtin(DATASETS) == registered_in("data/readers")
    assert builtin(SEARCH_ALGORITHMS) == registered_in("search/algorithms")


def test_lists_for_people_are_complete() -> None:
    rows = (ROOT / "docs/guide/data.md").read_text(encoding="utf-8")
    assert not {name for name in builtin(DATASETS) if f"| `{name}` |" not in rows}
    assert not unnamed(builtin(LOSSES), ObjectiveConfig.model_fields["loss"].description)
    assert not unnamed(builtin(SEARCH_ALGORITHMS), SearchConfig.model_fields["algorithm"].description)
    assert builtin(BACKBONES) == set(stored_costs())


def test_this_test_sees_a_missing_name() -> None:
    assert unnamed({"darts", "gdas"}, "darts: all candidates") == {"gdas"}
