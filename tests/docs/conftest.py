"""A tiny synthetic set, and the sizes that make the pages' commands run on it in seconds."""

from pathlib import Path

import pytest

from autoreid_fast.data.synthetic import SyntheticConfig, generate

SMALL = ("--data.height", "128", "--data.width", "32", "--device", "cpu", "--embedding-dim", "16")
CELLS = ("--cells-per-block", "1", "1", "1", "1", "--epochs", "1")


@pytest.fixture(autouse=True)
def _nothing_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Default run folders and caches fall into the test's own folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four identities to train on and four to find, three cameras."""
    root = tmp_path_factory.mktemp("people") / "set"
    generate(root, SyntheticConfig(train_identities=4, test_identities=4, cameras=3, junk=2, distractors=2))
    return root


@pytest.fixture(scope="session")
def small_search() -> list[str]:
    """Options that make a `search` small, appended to its line."""
    return [*SMALL, *CELLS, "--channels", "3", "--batch.identities", "2", "--batch.images", "2"]


@pytest.fixture(scope="session")
def small_train() -> list[str]:
    """Options that make a `train` small, appended to its line."""
    return [*SMALL, *CELLS, "--channels", "4", "--batch.identities", "2", "--batch.images", "2"]
