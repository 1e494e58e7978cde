"""Search algorithms of the package, one per file; importing this registers them."""

from autoreid_fast.search.algorithms import darts, gdas

__all__ = ["darts", "gdas"]
