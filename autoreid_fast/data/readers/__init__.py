"""Readers: one file per data set, with its config; importing this package registers all of them."""

from autoreid_fast.data.readers import cuhk03, folder, market1501, msmt17, synthetic

__all__ = ["cuhk03", "folder", "market1501", "msmt17", "synthetic"]
