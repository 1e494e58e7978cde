"""Readers: one data set each, its config beside it; importing this registers them all."""

from autoreid_fast.data.readers import cuhk03, folder, market1501, msmt17, synthetic

__all__ = ["cuhk03", "folder", "market1501", "msmt17", "synthetic"]
