"""Shared by all tests: one thread per worker, fixed seeds, restored registries, the optional real data."""

import gc
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from autoreid_fast.data.config import DATASETS
from autoreid_fast.losses import LOSSES
from autoreid_fast.models import BACKBONES
from autoreid_fast.nas import space as search_spaces
from autoreid_fast.nas.operations.registry import OPERATIONS
from autoreid_fast.registry import plugins
from autoreid_fast.registry.registry import Registry
from autoreid_fast.search.config import SEARCH_ALGORITHMS

torch.set_num_threads(1)  # the tests run in parallel processes
torch.backends.cudnn.allow_tf32 = (
    False  # references on a GPU convolve in float32, or they would excuse large errors
)

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


def pytest_collection_finish() -> None:
    """Spare garbage collections the objects of torch and of the tests themselves: a seventh of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


REGISTRIES: tuple[Registry[Any], ...] = (BACKBONES, DATASETS, LOSSES, OPERATIONS, SEARCH_ALGORITHMS)
for registry in REGISTRIES:
    registry.names()  # imports the built-in things, which restoring must not lose


@pytest.fixture(autouse=True)
def _restored_registries() -> Iterator[None]:
    """Forget what a test registers and the modules that it imports with ``--import``."""
    entries = [dict(registry._entries) for registry in REGISTRIES]
    spaces, imported, path = dict(search_spaces._SPACES), list(plugins._imported), list(sys.path)
    modules = set(sys.modules)
    yield
    for registry, before in zip(REGISTRIES, entries, strict=True):
        registry._entries = before
    search_spaces._SPACES.clear()
    search_spaces._SPACES.update(spaces)
    if plugins._imported != imported:
        for name in sys.modules.keys() - modules:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(gettempdir()):
                del sys.modules[name]
        plugins._imported[:], sys.path[:] = imported, path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images and labels beside the checkout; tests that need it skip without it."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder.name}/ is not beside this checkout")
    return folder


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Write a user's module ``mine.py`` to the current, empty directory, and forget it after the test.

    Calling it again with the same text makes the next command start as in a new process.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(plugins, "_imported", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    entries = [dict(registry._entries) for registry in REGISTRIES]

    def write(text: str) -> None:
        (tmp_path / "mine.py").write_text(text, encoding="utf-8")
        sys.modules.pop("mine", None)
        plugins._imported.clear()
        for registry, before in zip(REGISTRIES, entries, strict=True):
            registry._entries = dict(before)

    yield write
    write("")


@pytest.fixture
def own_images(tmp_path: Path) -> list[str]:
    """Options that read a folder of random images, 32 x 16, of 8 identities by 5 cameras."""
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(0)
    for pid in range(8):
        for camera in range(5):
            pixels = random.integers(0, 256, (32, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{pid}_c{camera}.png")
    options = {
        "kind": "folder",
        "root": str(folder),
        "pattern": r"(?P<pid>\d+)_c(?P<camera>\d+)",
        "height": "32",
        "width": "16",
    }
    return [word for name, value in options.items() for word in (f"--data.{name}", value)]


@pytest.fixture(scope="session")
def forks() -> ForkServerContext:
    """Server that has imported the package; its processes start at once, with one thread."""
    context = multiprocessing.get_context("forkserver")
    commands = [f"autoreid_fast.commands.{name}" for name in ("search", "train", "pretrain", "data")]
    reports = [f"autoreid_fast.report.{name}" for name in ("pages.run", "plots.cells", "plots.ranked_lists")]
    optimizers = "torch._dynamo"  # which the first one imports
    context.set_forkserver_preload(["torch.utils.tensorboard", optimizers, *commands, *reports])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        forkserver.ensure_running()
    return context
