"""Tails that look at horizontal strips of the feature map: PCB [30] and HPM [12]."""

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, max_pool2d

from autoreid_fast.models.head import ReIDOutput

STRIP_DIM = 256
"""What a strip is reduced to, in both papers."""


class StripHead(nn.Module):
    """Feature map (N, ``feature_dim``, H', W') -> f, g (N, 256 * strips) and h (N, ``num_classes``, strips).

    For each number in ``strip_counts`` the map is cut into so many strips of equal height, rows
    floor(i H' / count) .. ceil((i + 1) H' / count); where it has fewer rows, strips share them. A strip is
    pooled, reduced to 256 channels by a 1x1 convolution, batch norm and ReLU, and classified, each by
    weights of its own. Retrieval ranks by g, all reduced strips.

    PCB is six strips, pooled by their mean. HPM is a pyramid of 1, 2, 4 and 8 strips, pooled by the sum of
    mean and maximum (``with_maximum``). Both train by the sum of the strips' cross entropies.
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
            nn.Sequential(  # on a pooled strip a 1x1 convolution is a linear layer
                nn.Linear(feature_dim, STRIP_DIM, bias=False), nn.BatchNorm1d(STRIP_DIM), nn.ReLU()
            )
            for _ in range(strips)
        )
        self.classifiers = nn.ModuleList(nn.Linear(STRIP_DIM, num_classes) for _ in range(strips))

    def descriptor(self, feature_map: Tensor) -> Tensor:
        """What retrieval ranks by: g."""
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
    """What ``adaptive_max_pool2d(feature_map, (count, 1))`` gives, in operations that ONNX has as well."""
    height, width = feature_map.shape[2:]
    bounds = [(i * height // count, -(-(i + 1) * height // count)) for i in range(count)]
    strips = [feature_map[:, :, top:bottom] for top, bottom in bounds]
    return torch.cat([max_pool2d(strip, (strip.shape[2], width)) for strip in strips], dim=2)
