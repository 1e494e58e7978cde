"""Data sets of person re-identification, and batches of them.

Examples:
    Read a data set; no image is opened yet:

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from autoreid_fast.data import DataConfig, load_dataset
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("1_c1", "1_c2", "2_c1", "2_c2"):
    ...         Image.new("RGB", (16, 32)).save(Path(folder) / f"{name}.png")
    ...     config = DataConfig(kind="folder", root=folder, pattern=r"(?P<pid>\\d+)_c(?P<camera>\\d+)")
    ...     dataset = load_dataset(config)
    >>> dataset.train_identities, len(dataset.query), dataset.cameras
    (1, 2, 2)
"""

from typing import TYPE_CHECKING

from autoreid_fast.lazy import lazy_exports

if TYPE_CHECKING:
    from autoreid_fast.data.batches import relabel
    from autoreid_fast.data.config import DataConfig, register_dataset
    from autoreid_fast.data.dataset import Dataset, ImageRecord
    from autoreid_fast.data.load import load_dataset
    from autoreid_fast.data.sampler import IdentitySampler

__all__ = [
    "DataConfig",
    "Dataset",
    "IdentitySampler",
    "ImageRecord",
    "load_dataset",
    "register_dataset",
    "relabel",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "DataConfig": ".config",
        "Dataset": ".dataset",
        "IdentitySampler": ".sampler",
        "ImageRecord": ".dataset",
        "load_dataset": ".load",
        "register_dataset": ".config",
        "relabel": ".batches",
    },
)
