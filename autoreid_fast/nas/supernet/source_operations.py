"""Candidates of all edges that leave one source (an input or node), computed together.

Whatever the number E of its edges, a source needs one max pool and one average pool; one `separable_conv`
with 2 E filters (each edge's dilated convolution and the first half of its separable one); and one
`part_attention` for everything that its part-aware edges do before their last convolution. A candidate
outside `SHARED` runs as its plain module, batch norm included.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoreid_fast.nas.operations.part_aware import strip_of_rows
from autoreid_fast.nas.operations.registry import build_operation
from autoreid_fast.ops import SeparableConv, mixed_op_sum, part_attention, separable_conv, stencil3x3
from autoreid_fast.ops.part_attention.strips import PARTS

SHARED = ("max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3", "part_aware")
"""Candidates for which the edges of a source share work."""


class Candidate(NamedTuple):
    """Output of an operation before its last batch norm, and its statistics (2, C) if they are known."""

    z: Tensor
    statistics: Tensor | None = None


class PartAwareEdges(nn.Module):
    """Part-aware modules (Sec. 3.3) of the E edges that leave one source: parameters of `part_attention`."""

    sync_bn = False
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, edges: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        hidden = channels // 3
        self.project_weight = _parameter(edges, PARTS, hidden, channels)
        self.project_bias = _parameter(edges, PARTS, hidden)
        self.key_weight = _parameter(edges, hidden, hidden)
        self.key_bias = _parameter(edges, hidden)
        self.query_weight = _parameter(edges, hidden, hidden)
        self.query_bias = _parameter(edges, hidden)
        self.fuse_weight = _parameter(edges, channels, hidden)
        self.register_buffer("running_mean", torch.zeros(edges, PARTS, hidden))
        self.register_buffer("running_var", torch.ones(edges, PARTS, hidden))

    def forward(self, x: Tensor) -> Tensor:
        """Map x (N, C, H, W) to the part vectors' term of the fusing convolution, (E, N, H', W' or 1, C)."""
        bias = part_attention(
            x,
            self.project_weight,
            self.project_bias,
            self.key_weight,
            self.key_bias,
            self.query_weight,
            self.query_bias,
            self.fuse_weight,
            self.running_mean,
            self.running_var,
            relu=self.stride == 2,
            training=self.training,
            sync=self.sync_bn,
        )
        height, width = x.shape[2:]
        strip = strip_of_rows(height, x.device)
        if self.stride == 1:
            return bias.index_select(2, strip).unsqueeze(3)
        half = bias.shape[3] // 2
        even = bias[..., :half].index_select(2, strip[::2])
        odd = bias[..., half:].index_select(2, strip[1::2])
        odd = F.pad(odd, (0, 0, 0, height % 2)).unsqueeze(3)
        if width % 2:  # the shifted x lacks a column
            columns = (width + 1) // 2
            odd = F.pad(odd.expand(-1, -1, -1, columns - 1, -1), (0, 0, 0, 1))
        return torch.cat([even.unsqueeze(3).expand(*odd.shape[:-1], -1), odd], dim=4)


class SourceOperations(nn.Module):
    """Candidates of the E edges that leave one source; those in `SHARED` without their last batch norms.

    ``depthwise`` and ``pointwise`` hold the first halves of the edges' separable convolutions (rows
    0 .. E - 1) and the dilated convolutions (rows E .. 2 E - 1); ``depthwise_second`` and
    ``pointwise_second`` the second halves. ``plain`` stacks the 1x1 convolutions that read x itself: those of
    skip_connect (at stride 2), then W1 of part_aware. ``running_mean`` and ``running_var`` belong to the
    batch norms between the halves.
    """

    sync_bn = False
    running_mean: Tensor
    running_var: Tensor
    one: Tensor

    def __init__(self, edges: int, channels: int, stride: int, space: tuple[str, ...]) -> None:
        super().__init__()
        self.space = tuple(name for name in space if name != "none")
        self.edges, self.channels, self.stride = edges, channels, stride
        self.depthwise = _parameter(2 * edges, channels, 3, 3)
        self.pointwise = _parameter(2 * edges, channels, channels)
        self.depthwise_second = _parameter(edges, channels, 3, 3)
        self.pointwise_second = _parameter(edges, channels, channels)
        self.register_buffer("running_mean", torch.zeros(edges, channels))
        self.register_buffer("running_var", torch.ones(edges, channels))
        self.register_buffer("one", torch.ones(1), persistent=False)
        self.part = PartAwareEdges(edges, channels, stride) if "part_aware" in self.space else None
        plain = (edges if stride == 2 else 0) + (edges if self.part is not None else 0)
        self.plain = _parameter(plain, channels, channels) if plain else None
        others = [name for name in self.space if name not in SHARED]
        self.others = nn.ModuleList(
            nn.ModuleDict({name: build_operation(name, channels, stride, affine=False) for name in others})
            for _ in range(edges)
        )

    def forward(self, x: Tensor) -> list[list[Candidate]]:
        """Map x (N, C, H, W) to each edge's candidates, in the order of the space, each (N, C, H', W')."""
        pools = stencil3x3(x, stride=self.stride, max_pool=True, avg_pool=True)
        assert pools.max_pool is not None and pools.avg_pool is not None
        dilations = [1] * self.edges + [2] * self.edges
        # autocast does not handle our ops
        depthwise, pointwise = self.depthwise.to(x.dtype), self.pointwise.to(x.dtype)
        first = _candidates(separable_conv(x, depthwise, pointwise, dilations, self.stride, self.training))
        # split once for all edges: the backward pass would scatter and add a slice per edge
        seconds = zip(
            self.depthwise_second.to(x.dtype).split(1),
            self.pointwise_second.to(x.dtype).split(1),
            strict=True,
        )
        plain = self._plain(x)
        candidates = []
        for edge, second in enumerate(seconds):
            by_name = {
                "max_pool_3x3": Candidate(pools.max_pool),
                "avg_pool_3x3": Candidate(pools.avg_pool),
                "skip_connect": Candidate(x) if self.stride == 1 else plain[edge],
                "sep_conv_3x3": self._second_half(edge, first[edge], *second),
                "dil_conv_3x3": first[self.edges + edge],
            }
            if self.part is not None:
                by_name["part_aware"] = plain[len(plain) - self.edges + edge]
            others = self.others[edge]
            assert isinstance(others, nn.ModuleDict)
            by_name |= {name: Candidate(operation(x).to(x.dtype)) for name, operation in others.items()}
            candidates.append([by_name[name] for name in self.space])
        return candidates

    def _second_half(self, edge: int, first: Candidate, depthwise: Tensor, pointwise: Tensor) -> Candidate:
        """Finish a separable convolution: batch norm, then ReLU, depthwise and pointwise once more."""
        row = slice(edge, edge + 1)
        normalized = mixed_op_sum(
            [first.z],
            self.one,
            [True],
            self.running_mean[row],
            self.running_var[row],
            training=self.training,
            statistics=[first.statistics],
            sync=self.sync_bn,
        )
        (second,) = _candidates(
            separable_conv(normalized, depthwise, pointwise, [1], statistics=self.training)
        )
        return second

    def _plain(self, x: Tensor) -> list[Candidate]:
        """Apply the 1x1 convolutions to x, and add the part vectors' term to those of part_aware."""
        if self.plain is None:
            return []
        if self.stride == 1:
            pixels = x.permute(0, 2, 3, 1)
            z = [F.linear(pixels, weight) for weight in self.plain.unbind()]
        else:
            z = self._plain_reduced(x, self.plain)
        if self.part is not None:
            for part_aware, bias in zip(z[-self.edges :], self.part(x).unbind(), strict=True):
                part_aware += bias
        return [Candidate(output.permute(0, 3, 1, 2)) for output in z]

    def _plain_reduced(self, x: Tensor, weights: Tensor) -> list[Tensor]:
        """Apply each of ``weights`` (K, C, C) as a FactorizedReduce, without batch norm: (N, H', W', C)."""
        half = self.channels // 2
        even = x[:, :, ::2, ::2]
        odd = F.pad(x[:, :, 1::2, 1::2], (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        even, odd = (F.relu(pixels).permute(0, 2, 3, 1).contiguous() for pixels in (even, odd))
        halves = zip(weights[:, :half].unbind(), weights[:, half:].unbind(), strict=True)
        return [torch.cat([F.linear(even, first), F.linear(odd, second)], -1) for first, second in halves]


def _parameter(*sizes: int) -> nn.Parameter:
    """Create a parameter that `SourceSupernet` fills."""
    return nn.Parameter(torch.empty(sizes))


def _candidates(convolved: SeparableConv) -> list[Candidate]:
    """Split the output of `separable_conv` into one candidate per filter."""
    filters = len(convolved.z)
    if filters == 1:  # its gradient costs no copy this way
        z = [convolved.z.squeeze(0)]
    else:  # in the memory layout in which their gradients will be stacked
        z = [filter_output.movedim(-1, 1) for filter_output in convolved.z.movedim(2, -1).unbind()]
    statistics = [None] * filters if convolved.statistics is None else convolved.statistics.unbind()
    return [Candidate(*output) for output in zip(z, statistics, strict=True)]
