"""A folder of images with their features, and the images nearest to a query."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from autoreid_fast import ops
from autoreid_fast.errors import AutoReIDError

ROWS_AT_ONCE = 65536  # of the features, which are memory-mapped


@dataclass(frozen=True)
class Gallery:
    """The readable images below a folder.

    Attributes:
        root: the folder.
        paths: N paths, relative to ``root``.
        features: (N, D) float32, memory-mapped.
    """

    root: Path
    paths: list[str]
    features: np.ndarray

    def nearest(
        self, feature: torch.Tensor, top: int, exclude: Path | None = None
    ) -> list[tuple[float, str]]:
        """Find the images nearest to a feature.

        Args:
            feature: (D,) float32.
            top: number of images, 1 to 999.
            exclude: a file to leave out under all of its names, such as a query that is in the gallery.

        Returns:
            Euclidean distance and path of each image, nearest first.

        Raises:
            AutoReIDError: ``top`` is not from 1 to 999.
        """
        check_top(top)
        own = _identity(exclude) if exclude else None
        most = min(ops.MAX_NEAREST, len(self.paths))
        count = min(top + 1, most)
        while True:
            named = [(distance, self.paths[row]) for distance, row in self._nearest(feature, count)]
            others = [(d, path) for d, path in named if own is None or _identity(self.root / path) != own]
            if len(others) >= top or count == most:
                return others[:top]
            count = min(2 * count, most)  # `exclude` has several names

    def _nearest(self, feature: torch.Tensor, count: int) -> list[tuple[float, int]]:
        """Distance and row of the nearest images, nearest first."""
        candidates: list[tuple[float, int]] = []
        for start in range(0, len(self.paths), ROWS_AT_ONCE):
            rows = torch.from_numpy(self.features[start : start + ROWS_AT_ONCE])
            distances, indices = ops.nearest(feature[None], rows, min(count, len(rows)))
            candidates += zip(distances[0].tolist(), (start + indices[0]).tolist(), strict=True)
            candidates = sorted(candidates)[:count]
        return candidates


def check_top(top: int) -> None:
    """Raise AutoReIDError unless so many images can be asked for."""
    if not 1 <= top < ops.MAX_NEAREST:
        raise AutoReIDError(f"top is {top}; expected 1 to {ops.MAX_NEAREST - 1}")


def _identity(file: Path) -> tuple[int, int] | None:
    """Return what all names of a file have in common; None if there is no such file."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
