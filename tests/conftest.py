"""What every test shares: one thread a worker, fixed seeds, and the way to the optional real data."""

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from autoreid_fast.losses import LOSSES
from autoreid_fast.models import BACKBONES
from autoreid_fast.registry import plugins
from autoreid_fast.search.config import SEARCH_ALGORITHMS

torch.set_num_threads(1)  # the tests run in parallel processes
torch.backends.cudnn.allow_tf32 = (
    False  # twins on a GPU convolve in float32, or they would excuse large errors
)

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


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
    registries = (BACKBONES, LOSSES, SEARCH_ALGORITHMS)
    entries = [registry.entries() for registry in registries]

    def write(text: str) -> None:
        (tmp_path / "mine.py").write_text(text, encoding="utf-8")
        sys.modules.pop("mine", None)
        plugins._imported.clear()
        for registry, before in zip(registries, entries, strict=True):
            registry._entries = {entry.name: entry for entry in before}

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
    context.set_forkserver_preload(["torch.utils.tensorboard", *commands])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        forkserver.ensure_running()
    return context
