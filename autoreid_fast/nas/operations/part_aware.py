"""Part-aware module (Sec. 3.3, Fig. 2): horizontal strips of the body that attend to each other."""

import torch
from torch import Tensor, nn

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.operations.layers import ConvBN, FactorizedReduce, Layer
from autoreid_fast.ops.part_attention.strips import PARTS, strip_bounds


def strip_of_rows(height: int, device: torch.device) -> Tensor:
    """Return the strip of each row, (H,) int64, by `strip_bounds`; on ``device``, without a host sync."""
    first = PARTS - 1
    return torch.arange(first, first + PARTS * height, PARTS, device=device) // height


class Projection(nn.Sequential):
    """Each strip's own ReLU, 1x1 convolution with bias and batch norm: (N, M C, 1) -> (N, M hidden, 1).

    The M convolutions are one convolution in M groups, and the M batch norms one over M * hidden channels.
    """

    convolution = Layer[nn.Conv1d](1)
    norm = Layer[nn.BatchNorm1d](2)

    def __init__(self, channels: int, hidden: int, affine: bool) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv1d(PARTS * channels, PARTS * hidden, 1, groups=PARTS),
            nn.BatchNorm1d(PARTS * hidden, affine=affine),
        )


class PartAware(nn.Module):
    """Give every pixel the features of its body part; shapes as for every candidate operation.

    1. Average each strip of x into a vector and project it (C -> C // 3, `Projection`): body vectors f
       (N, M, C // 3).
    2. Let the parts interact: K and Q by one linear layer each, A = softmax(K Q^T) along its rows,
       part = A f (without the values and the 1 / sqrt(d) of [32]).
    3. Repeat each part vector over its strip, concatenate with x and fuse (C + C // 3 -> C) by a 1x1
       convolution and batch norm, at stride 2 by a FactorizedReduce.

    Args:
        channels: C, at least 3.
        stride: 1 or 2.
        affine: Whether batch norms learn scale and shift.

    Raises:
        AutoReIDError: C < 3; in the forward pass H < M, or a batch of one image in training mode (each
            strip's batch norm has one value per image).
    """

    def __init__(self, channels: int, stride: int, affine: bool) -> None:
        super().__init__()
        self.hidden = channels // 3
        if self.hidden < 1:
            raise AutoReIDError(f"part_aware needs at least 3 channels, got {channels}: raise channels")
        self.project = Projection(channels, self.hidden, affine)
        self.key = nn.Linear(self.hidden, self.hidden)
        self.query = nn.Linear(self.hidden, self.hidden)
        fuse = ConvBN if stride == 1 else FactorizedReduce
        self.fuse = fuse(channels + self.hidden, channels, affine)

    @property
    def norm(self) -> nn.BatchNorm2d:
        """The batch norm that ends the operation."""
        return self.fuse.norm

    def check(self, x: Tensor) -> None:
        """Raise AutoReIDError if the module cannot process x (N, C, H, W)."""
        if x.shape[2] < PARTS:
            raise AutoReIDError(f"part_aware got {x.shape[2]} rows and needs {PARTS}: use taller images")
        if self.training and x.shape[0] < 2:
            raise AutoReIDError("part_aware cannot train on a batch of one image: use at least 2")

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        height, width = x.shape[2:]
        part = self._attend(self._body_vectors(x))
        strips = [
            part[:, m, :, None, None].expand(-1, -1, last - first, width)
            for m, (first, last) in enumerate(strip_bounds(height))
        ]
        fused: Tensor = self.fuse(torch.cat([x, torch.cat(strips, dim=2)], dim=1))
        return fused

    def _body_vectors(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to f (N, M, hidden)."""
        means = [x[:, :, first:last].mean(dim=(2, 3)) for first, last in strip_bounds(x.shape[2])]
        return self.project(torch.cat(means, dim=1).unsqueeze(2)).view(-1, PARTS, self.hidden)

    def _attend(self, f: Tensor) -> Tensor:
        """Map body vectors f (N, M, hidden) to part vectors (N, M, hidden)."""
        attention = torch.softmax(self.key(f) @ self.query(f).transpose(1, 2), dim=2)
        return attention @ f
