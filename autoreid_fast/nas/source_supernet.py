"""The supernet arranged by source: `Supernet`'s mathematics, parameters of equal candidates stacked."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from autoreid_fast.nas.genotype import CELL_INPUTS, edge_index
from autoreid_fast.nas.source_cell import SourceCell, SourceOperations, nodes_of
from autoreid_fast.nas.supernet import Supernet

Index = tuple[int | slice, ...]


class Share(NamedTuple):
    """Where a tensor of the reference's state dict lies in a stacked one: source[at] = reference[part]."""

    source: str
    at: Index
    reference: str
    part: Index = ()


class SourceSupernet(Supernet):
    """Images (N, 3, H, W) -> f (N, 32 * ``channels``): `Supernet`, several times faster in half the memory.

    Outputs and gradients are the reference's to rounding, and so are the weights it starts from: one random
    state gives both the same. State dicts convert both ways, `load_reference_state_dict` and
    `reference_state_dict`.
    """

    cell_type = SourceCell

    def __init__(
        self, channels: int = 32, cells_per_block: Sequence[int] = (2, 2, 2, 2), space: str = "reid"
    ) -> None:
        reference = Supernet(channels, cells_per_block, space)
        with torch.random.fork_rng(devices=[]):
            super().__init__(channels, cells_per_block, space)
        self.load_reference_state_dict(reference.state_dict())

    def load_reference_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over the state dict of a `Supernet` of the same channels, cells and space."""
        own = self.state_dict()
        with torch.no_grad():
            for name in own.keys() & state.keys():
                own[name].copy_(state[name])
            for share in self._shares():
                target = own[share.source][share.at]
                target.copy_(state[share.reference][share.part].reshape(target.shape))

    def reference_state_dict(self) -> dict[str, Tensor]:
        """The state dict that a `Supernet` of the same channels, cells and space loads."""
        own = self.state_dict()
        with torch.device("meta"):
            wanted = Supernet(self.channels, self.cells_per_block, self.space).state_dict()
        state = {}
        for name, like in wanted.items():
            # batch norms that lie in fused ops do not count their batches: all have seen the same
            held = "head.1.num_batches_tracked" if name.endswith("num_batches_tracked") else name
            empty = own["alpha_normal"].new_empty(like.shape)
            state[name] = own[held].clone() if held in own else empty
        for share in self._shares():
            target = state[share.reference][share.part]
            target.copy_(own[share.source][share.at].reshape(target.shape))
        return state

    def _shares(self) -> Iterator[Share]:
        """Every share of every stacked parameter and buffer."""
        for name, cell in self.named_modules():
            if isinstance(cell, SourceCell):
                for source, operations in enumerate(cell.sources):
                    assert isinstance(operations, SourceOperations)
                    for number, node in enumerate(nodes_of(source)):
                        edge = f"{name}.edges.{edge_index(node, source)}.operations"
                        yield from _candidates(operations, f"{name}.sources.{source}", number, edge)
                        yield from _last_batch_norms(cell, name, source, node, edge)


def _candidates(operations: SourceOperations, name: str, number: int, edge: str) -> Iterator[Share]:
    """The parameters of one edge's candidates; the edge is its source's ``number``-th."""
    sep, dil = f"{edge}.sep_conv_3x3", f"{edge}.dil_conv_3x3"
    for kind, convolution in (("depthwise", 1), ("pointwise", 2)):
        yield Share(f"{name}.{kind}", (number,), f"{sep}.0.{convolution}.weight")
        yield Share(f"{name}.{kind}", (operations.edges + number,), f"{dil}.{convolution}.weight")
        yield Share(f"{name}.{kind}_second", (number,), f"{sep}.1.{convolution}.weight")
    for moment in ("running_mean", "running_var"):
        yield Share(f"{name}.{moment}", (number,), f"{sep}.0.3.{moment}")
    if operations.stride == 2:
        yield from _halves(f"{name}.plain", number, f"{edge}.skip_connect", operations.channels, ())
    if operations.part is not None:
        yield from _part_aware(operations, name, number, f"{edge}.part_aware")
    for key in operations.others[number].state_dict():
        yield Share(f"{name}.others.{number}.{key}", (), f"{edge}.{key}")


def _part_aware(operations: SourceOperations, name: str, number: int, reference: str) -> Iterator[Share]:
    """The part-aware module; its fusing convolution is split into the columns for x and for the parts."""
    for projection in ("weight", "bias"):
        yield Share(f"{name}.part.project_{projection}", (number,), f"{reference}.project.1.{projection}")
        for role in ("key", "query"):
            yield Share(f"{name}.part.{role}_{projection}", (number,), f"{reference}.{role}.{projection}")
    for moment in ("running_mean", "running_var"):
        yield Share(f"{name}.part.{moment}", (number,), f"{reference}.project.2.{moment}")
    channels = operations.channels
    of_x: Index = (slice(None), slice(channels))
    of_part: Index = (slice(None), slice(channels, None))
    if operations.stride == 1:
        yield Share(f"{name}.plain", (number,), f"{reference}.fuse.0.weight", of_x)
        yield Share(f"{name}.part.fuse_weight", (number,), f"{reference}.fuse.0.weight", of_part)
    else:  # behind the skip connections
        yield from _halves(f"{name}.plain", operations.edges + number, f"{reference}.fuse", channels, of_x)
        yield from _halves(f"{name}.part.fuse_weight", number, f"{reference}.fuse", channels, of_part)


def _halves(source: str, row: int, reference: str, channels: int, part: Index) -> Iterator[Share]:
    """A FactorizedReduce: the rows of its two convolutions one below the other."""
    half = channels // 2
    yield Share(source, (row, slice(half)), f"{reference}.conv.weight", part)
    yield Share(source, (row, slice(half, None)), f"{reference}.conv_shifted.weight", part)


def _last_batch_norms(cell: SourceCell, name: str, source: int, node: int, edge: str) -> Iterator[Share]:
    """The statistics of the batch norms that end one edge's candidates, which its node keeps."""
    stride = 2 if cell.reduction and source < CELL_INPUTS else 1
    last = {
        "max_pool_3x3": "1",
        "avg_pool_3x3": "1",
        "sep_conv_3x3": "1.3",
        "dil_conv_3x3": "3",
        "skip_connect": "bn",
        "part_aware": "fuse.bn" if stride == 2 else "fuse.1",
    }
    for column, operation in enumerate(cell.scored):
        row = source * len(cell.scored) + column
        if cell.normalized[node][row]:
            for moment in ("running_mean", "running_var"):
                key = f"{edge}.{operation}.{last[operation]}.{moment}"
                yield Share(f"{name}.{moment}_{node}", (row,), key)
