"""The horizontal strips of the part-aware module (Fig. 2)."""

from itertools import pairwise

PARTS = 4
"""M: the number of strips."""


def strip_bounds(height: int) -> list[tuple[int, int]]:
    """First row of each strip, and the row after its last: floor(m H / M) and floor((m + 1) H / M)."""
    return list(pairwise(m * height // PARTS for m in range(PARTS + 1)))
