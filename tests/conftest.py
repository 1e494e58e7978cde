"""What every test shares: one thread a worker, fixed seeds, and the way to the optional real data."""

from pathlib import Path

import pytest
import torch

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
