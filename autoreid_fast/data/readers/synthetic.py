"""Synthetic pedestrians, written by ``autoreid-fast data synth`` in the layout of Market-1501."""

from autoreid_fast.data.config import DataConfig, register_dataset
from autoreid_fast.data.dataset import Dataset
from autoreid_fast.data.readers.market1501 import read_layout


class SyntheticDataConfig(DataConfig):
    """Synthetic pedestrians on disk."""


@register_dataset("synthetic")
def read_synthetic(config: SyntheticDataConfig) -> Dataset:
    """Synthetic pedestrians, as `data synth` writes them.

    Raises:
        AutoReIDError: as in `read_market1501`.
    """
    return read_layout(config.root_folder, name="synthetic")
