"""Heads on horizontal strips of the feature map: PCB [30] and HPM [12]."""

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, max_pool2d

from autoreid_fast.models.heads.embedding import ReIDOutput

STRIP_DIM = 256
"""Channels that a strip is reduced to, in both papers."""


class StripHead(nn.Module):
    """Feature map (N, ``feature_dim``, H', W') -> f, g (N, 256 * strips) and h (N, ``num_classes``, strips).

    For each number in ``strip_counts`` the map is cut into that many strips of equal height, rows
    floor(i H' / count) .. ceil((i + 1) H' / count) - 1; where the map has fewer rows, strips overlap. Each
    strip is pooled, reduced to 256 channels by a 1x1 convolution, batch norm and ReLU, and classified; each
    has its own weights. Retrieval ranks by g, the concatenation of all reduced strips.

    PCB has six strips, pooled by their mean. HPM has a pyramid of 1, 2, 4 and 8 strips, pooled by the sum of
    mean and maximum. Both train for the sum of the strips' cross entropies.

    Args:
        feature_dim: Channels of the feature map.
        num_classes: Training identities.
        strip_counts: Numbers of strips to cut the map into.
        with_maximum: Pool by mean plus maximum instead of the mean.
        dropout: Dropout rate of the pooled strips.
    """

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        strip_counts: tuple[int, ...],
        with_maximum: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.strip_counts = strip_counts
        self.with_maximum = with_maximum
        strips = sum(strip_counts)
        self.dropout = nn.Dropout(dropout)
        self.reductions = nn.ModuleList(
            nn.Sequential(  # a 1x1 convolution of a pooled strip is a linear layer
                nn.Linear(feature_dim, STRIP_DIM, bias=False), nn.BatchNorm1d(STRIP_DIM), nn.ReLU()
            )
            for _ in range(strips)
        )
        self.classifiers = nn.ModuleList(nn.Linear(STRIP_DIM, num_classes) for _ in range(strips))

    def descriptor(self, feature_map: Tensor) -> Tensor:
        """Return g, by which retrieval ranks."""
        return torch.cat(self._reduced(feature_map), dim=1)

    def forward(self, feature_map: Tensor) -> ReIDOutput:
        reduced = self._reduced(feature_map)
        logits = [classify(strip) for classify, strip in zip(self.classifiers, reduced, strict=True)]
        f = feature_map.mean(dim=(2, 3))
        return ReIDOutput(f, torch.cat(reduced, dim=1), torch.stack(logits, dim=2))

    def _reduced(self, feature_map: Tensor) -> list[Tensor]:
        strips = self.dropout(torch.cat([self._pooled(feature_map, n) for n in self.strip_counts], dim=2))
        return [reduce(strip) for reduce, strip in zip(self.reductions, strips.unbind(dim=2), strict=True)]

    def _pooled(self, feature_map: Tensor, count: int) -> Tensor:
        pooled = adaptive_avg_pool2d(feature_map, (count, 1))
        if self.with_maximum:
            pooled = pooled + _strip_maxima(feature_map, count)
        return pooled.squeeze(3)


def _strip_maxima(feature_map: Tensor, count: int) -> Tensor:
    """Compute ``adaptive_max_pool2d(feature_map, (count, 1))`` by operations that ONNX supports."""
    height, width = feature_map.shape[2:]
    bounds = [(i * height // count, -(-(i + 1) * height // count)) for i in range(count)]
    strips = [feature_map[:, :, top:bottom] for top, bottom in bounds]
    return torch.cat([max_pool2d(strip, (strip.shape[2], width)) for strip in strips], dim=2)
