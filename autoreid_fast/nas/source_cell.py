"""A cell of the supernet arranged by source: what the edges that leave one share is computed once.

The mathematics is `cell.SearchCell`'s, which goes edge by edge; `source_supernet.py` converts parameters.
Whatever the number E of its edges, a source needs one max pool and one average pool; one `separable_conv`
with 2 E filters (an edge's dilated convolution and the first half of its separable one), and one
`part_attention` for all that its part-aware edges do before their last convolution. A node is one
`mixed_op_sum` over every candidate of every edge that enters it. A candidate that nothing here shares
(`SHARED`) runs as the module it is, batch norm included.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoreid_fast.nas.cell import CellShape, Preprocess
from autoreid_fast.nas.genotype import CELL_INPUTS, NODES, edge_index
from autoreid_fast.nas.operations import build_operation
from autoreid_fast.nas.part_aware import PARTS, strip_of_rows
from autoreid_fast.ops import SeparableConv, mixed_op_sum, part_attention, separable_conv, stencil3x3

SOURCES = CELL_INPUTS + NODES - 1
"""The inputs and nodes that edges leave: every one but the last node."""

SHARED = ("max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3", "part_aware")
"""The candidates that the edges of a source share work for."""


def nodes_of(source: int) -> range:
    """The nodes that read ``source``; its edges are numbered in this order."""
    return range(max(0, source - CELL_INPUTS + 1), NODES)


class PartAwareEdges(nn.Module):
    """The part-aware module (Sec. 3.3) of E edges that read one source: parameters of `part_attention`."""

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
        """x (N, C, H, W) -> what the part vectors add to the fusing convolution, (E, N, H', W' or 1, C)."""
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
        if width % 2:  # the shifted x has a column too few
            columns = (width + 1) // 2
            odd = F.pad(odd.expand(-1, -1, -1, columns - 1, -1), (0, 0, 0, 1))
        return torch.cat([even.unsqueeze(3).expand(*odd.shape[:-1], -1), odd], dim=4)


class Candidate(NamedTuple):
    """What an operation gives before its last batch norm, and its statistics (2, C) where they are known."""

    z: Tensor
    statistics: Tensor | None = None


class SourceOperations(nn.Module):
    """The candidates of E edges that leave one source; those in `SHARED` without their last batch norms."""

    sync_bn = False
    running_mean: Tensor
    running_var: Tensor
    one: Tensor

    def __init__(self, edges: int, channels: int, stride: int, space: tuple[str, ...]) -> None:
        super().__init__()
        self.space = tuple(name for name in space if name != "none")
        self.edges, self.channels, self.stride = edges, channels, stride
        # the separable convolutions' first halves, then the dilated convolutions
        self.depthwise = _parameter(2 * edges, channels, 3, 3)
        self.pointwise = _parameter(2 * edges, channels, channels)
        self.depthwise_second = _parameter(edges, channels, 3, 3)
        self.pointwise_second = _parameter(edges, channels, channels)
        self.register_buffer("running_mean", torch.zeros(edges, channels))
        self.register_buffer("running_var", torch.ones(edges, channels))
        self.register_buffer("one", torch.ones(1), persistent=False)
        self.part = PartAwareEdges(edges, channels, stride) if "part_aware" in self.space else None
        # what skip_connect (at stride 2) and then part_aware read of x, rows of one 1x1 convolution
        plain = (edges if stride == 2 else 0) + (edges if self.part is not None else 0)
        self.plain = _parameter(plain, channels, channels) if plain else None
        others = [name for name in self.space if name not in SHARED]
        self.others = nn.ModuleList(
            nn.ModuleDict({name: build_operation(name, channels, stride, affine=False) for name in others})
            for _ in range(edges)
        )

    def forward(self, x: Tensor) -> list[list[Candidate]]:
        """x (N, C, H, W) -> for each edge its candidates in the order of the space, each (N, C, H', W')."""
        pools = stencil3x3(x, stride=self.stride, max_pool=True, avg_pool=True)
        assert pools.max_pool is not None and pools.avg_pool is not None
        dilations = [1] * self.edges + [2] * self.edges
        # autocast knows torch's own operators alone
        depthwise, pointwise = self.depthwise.to(x.dtype), self.pointwise.to(x.dtype)
        first = _candidates(separable_conv(x, depthwise, pointwise, dilations, self.stride, self.training))
        # once for all edges: a slice for each would be scattered and added in the backward pass
        seconds = zip(
            self.depthwise_second.to(x.dtype).split(1),
            self.pointwise_second.to(x.dtype).split(1),
            strict=True,
        )
        plain = self._plain(x)
        candidates = []
        for edge, second in enumerate(seconds):
            of = {
                "max_pool_3x3": Candidate(pools.max_pool),
                "avg_pool_3x3": Candidate(pools.avg_pool),
                "skip_connect": Candidate(x) if self.stride == 1 else plain[edge],
                "sep_conv_3x3": self._second_half(edge, first[edge], *second),
                "dil_conv_3x3": first[self.edges + edge],
            }
            if self.part is not None:
                of["part_aware"] = plain[len(plain) - self.edges + edge]
            others = self.others[edge]
            assert isinstance(others, nn.ModuleDict)
            of |= {name: Candidate(operation(x).to(x.dtype)) for name, operation in others.items()}
            candidates.append([of[name] for name in self.space])
        return candidates

    def _second_half(self, edge: int, first: Candidate, depthwise: Tensor, pointwise: Tensor) -> Candidate:
        """The rest of a separable convolution: batch norm, then ReLU, depthwise and pointwise once more."""
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
        """The 1x1 convolutions of x itself, with the part vectors' share where they are part_aware's."""
        if self.plain is None:
            return []
        if self.stride == 1:
            pixels = x.permute(0, 2, 3, 1)
            z = [F.linear(pixels, weight) for weight in self.plain.unbind()]
        else:
            half = self.channels // 2
            odd = F.pad(x[:, :, 1::2, 1::2], (0, x.shape[3] % 2, 0, x.shape[2] % 2))
            even, odd = (F.relu(each).permute(0, 2, 3, 1).contiguous() for each in (x[:, :, ::2, ::2], odd))
            halves = zip(self.plain[:, :half].unbind(), self.plain[:, half:].unbind(), strict=True)
            z = [torch.cat([F.linear(even, one), F.linear(odd, other)], -1) for one, other in halves]
        if self.part is not None:
            for each, bias in zip(z[-self.edges :], self.part(x).unbind(), strict=True):
                each += bias
        return [Candidate(each.permute(0, 3, 1, 2)) for each in z]


class SourceCell(nn.Module):
    """`SearchCell` arranged by source; same inputs, same output."""

    sync_bn = False

    def __init__(self, shape: CellShape, space: tuple[str, ...]) -> None:
        super().__init__()
        self.reduction = shape.reduction
        self.preprocess = Preprocess(shape, affine=False)
        self.sources = nn.ModuleList(
            SourceOperations(len(nodes_of(source)), shape.channels, shape.stride(source), space)
            for source in range(SOURCES)
        )
        self.scored = tuple(name for name in space if name != "none")
        self.normalized = [
            [
                name in SHARED and (name != "skip_connect" or shape.stride(source) == 2)
                for source in range(CELL_INPUTS + node)
                for name in self.scored
            ]
            for node in range(NODES)
        ]
        for node, flags in enumerate(self.normalized):
            self.register_buffer(f"running_mean_{node}", torch.zeros(len(flags), shape.channels))
            self.register_buffer(f"running_var_{node}", torch.ones(len(flags), shape.channels))

    def forward(self, older: Tensor, newer: Tensor, weights: Tensor) -> Tensor:
        """The last two cells' outputs and softmax(alpha) (14, |O|) -> this cell's output (N, 4C, H', W')."""
        states = self.preprocess(older, newer)
        shares = weights[:, weights.shape[1] - len(self.scored) :]  # `none` comes first and adds zero
        candidates: list[list[list[Candidate]]] = [self.sources[s](states[s]) for s in range(CELL_INPUTS)]
        for node in range(NODES):
            edges = [each[node - nodes_of(source).start] for source, each in enumerate(candidates)]
            first = edge_index(node, 0)
            z, statistics = zip(*(candidate for edge in edges for candidate in edge), strict=True)
            state = mixed_op_sum(
                z,
                shares[first : first + len(edges)].reshape(-1),
                self.normalized[node],
                self.get_buffer(f"running_mean_{node}"),
                self.get_buffer(f"running_var_{node}"),
                training=self.training,
                statistics=statistics,
                sync=self.sync_bn,
            )
            states.append(state)
            if node < NODES - 1:
                candidates.append(self.sources[CELL_INPUTS + node](state))
        return torch.cat(states[CELL_INPUTS:], dim=1)


def _parameter(*sizes: int) -> nn.Parameter:
    """Filled by `SourceSupernet`."""
    return nn.Parameter(torch.empty(sizes))


def _candidates(convolved: SeparableConv) -> list[Candidate]:
    """One candidate a filter."""
    filters = len(convolved.z)
    if filters == 1:  # whose gradient costs no copy this way
        z = [convolved.z.squeeze(0)]
    else:  # as they lie in memory, for so their gradients will be stacked
        z = [each.movedim(-1, 1) for each in convolved.z.movedim(2, -1).unbind()]
    known = [None] * filters if convolved.statistics is None else convolved.statistics.unbind()
    return [Candidate(*each) for each in zip(z, known, strict=True)]
