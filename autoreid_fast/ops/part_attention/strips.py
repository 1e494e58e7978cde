"""The horizontal strips of the part-aware module (Fig. 2)."""

from itertools import pairwise

PARTS = 4
"""M: the number of strips."""


def strips(height: int) -> list[tuple[int, int]]:
    """First row of each strip, and the row after its last; of uneven sizes where M does not divide H."""
    return list(pairwise(i * height // PARTS for i in range(PARTS + 1)))
