"""Data sets of person re-identification, and batches of them."""

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
