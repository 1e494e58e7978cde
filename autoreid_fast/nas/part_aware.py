"""The part-aware module (Sec. 3.3, Fig. 2): horizontal strips of the body that attend to each other."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from autoreid_fast.errors import AutoReIDError

PARTS = 4
"""M: the number of horizontal strips a person is cut into (Fig. 2)."""


def strip_bounds(height: int) -> list[int]:
    """The M + 1 bounds of the strips: strip i holds the rows floor(i H / M) .. floor((i + 1) H / M) - 1."""
    return [i * height // PARTS for i in range(PARTS + 1)]


def strip_of_rows(height: int, device: torch.device) -> Tensor:
    """The strip (H,) that each row is in, as `strip_bounds` has it; made on ``device`` without waiting."""
    first = PARTS - 1
    return torch.arange(first, first + PARTS * height, PARTS, device=device) // height


class PartAware(nn.Module):
    """Tell every pixel what its body part looks like: (N, C, H, W) -> (N, C, H', W').

    1. average each strip of x into a vector and transform it by the strip's own ReLU, 1x1 convolution
       (C -> C // 3, with bias) and batch norm: the body vectors f (N, M, C // 3);
    2. let them interact: K and Q by one linear layer each, A = softmax(K Q^T) along its rows, part = A f
       (neither values nor the 1 / sqrt(d) of [32]);
    3. repeat each part vector over its strip, concatenate to x and fuse: (N, C + C // 3, H, W) -> the output.

    ``make_fuse`` builds the fusing layer from its number of input channels; H' and W' are what it gives.
    Raises AutoReIDError for H < M, for C < 3, and for a batch of one image in training mode (each strip's
    batch norm sees one value an image).
    """

    def __init__(self, channels: int, affine: bool, make_fuse: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.hidden = channels // 3
        if self.hidden < 1:
            raise AutoReIDError(f"part_aware needs at least 3 channels, got {channels}: raise channels")
        # M projections are one convolution in M groups, and M batch norms one over M * hidden channels.
        self.project = nn.Sequential(
            nn.ReLU(),
            nn.Conv1d(PARTS * channels, PARTS * self.hidden, 1, groups=PARTS),
            nn.BatchNorm1d(PARTS * self.hidden, affine=affine),
        )
        self.key = nn.Linear(self.hidden, self.hidden)
        self.query = nn.Linear(self.hidden, self.hidden)
        self.fuse = make_fuse(channels + self.hidden)

    def check(self, x: Tensor) -> None:
        """Raise AutoReIDError where the module cannot take x."""
        if x.shape[2] < PARTS:
            raise AutoReIDError(f"part_aware got {x.shape[2]} rows and needs {PARTS}: use taller images")
        if self.training and x.shape[0] < 2:
            raise AutoReIDError("part_aware cannot train on a batch of one image: use at least 2")

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        height, width = x.shape[2:]
        part = self._attend(self._body_vectors(x))
        bounds = strip_bounds(height)
        strips = [
            part[:, i, :, None, None].expand(-1, -1, bounds[i + 1] - bounds[i], width) for i in range(PARTS)
        ]
        return self.fuse(torch.cat([x, torch.cat(strips, dim=2)], dim=1))

    def _body_vectors(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> f (N, M, hidden)."""
        bounds = strip_bounds(x.shape[2])
        means = [x[:, :, bounds[i] : bounds[i + 1]].mean(dim=(2, 3)) for i in range(PARTS)]
        return self.project(torch.cat(means, dim=1).unsqueeze(2)).view(-1, PARTS, self.hidden)

    def _attend(self, f: Tensor) -> Tensor:
        """Body vectors f (N, M, hidden) -> part vectors (N, M, hidden)."""
        attention = torch.softmax(self.key(f) @ self.query(f).transpose(1, 2), dim=2)
        return attention @ f
