"""Decoding the images of a data set at the size of its config, with a progress bar."""

from collections.abc import Sequence

from autoreid_fast.data.cache import ImageCache, open_cache
from autoreid_fast.data.config import DataConfig
from autoreid_fast.data.dataset import Dataset, ImageRecord
from autoreid_fast.progress import progress_bar


def decoded(dataset: Dataset, records: Sequence[ImageRecord], config: DataConfig) -> ImageCache:
    """Open the image cache of ``records`` at the config's size; build it if needed."""
    with progress_bar(f"decoding {dataset.name}") as show_done:
        return open_cache(
            dataset,
            records,
            config.height,
            config.width,
            config.cache_dir,
            config.max_unreadable_share,
            show_done,
        )
