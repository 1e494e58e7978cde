"""Map between the stacked tensors of `SourceCell` and the modules of `SearchCell`."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from torch import Tensor, nn

from autoreid_fast.nas.operations.layers import ConvBN, DepthwiseSeparable, FactorizedReduce, SepConv
from autoreid_fast.nas.operations.part_aware import PartAware
from autoreid_fast.nas.space import edge_index
from autoreid_fast.nas.supernet.edge_cell import MixedOp, SearchCell
from autoreid_fast.nas.supernet.source_cell import SourceCell, nodes_of
from autoreid_fast.nas.supernet.source_operations import PartAwareEdges, SourceOperations

Index = tuple[int | slice, ...]


class WeightSlice(NamedTuple):
    """Position of a reference tensor in a stacked one: stacked[position] = reference[part]."""

    stacked: Tensor
    position: Index
    reference: Tensor
    part: Index = ()

    def load(self) -> None:
        """Copy from the edge-by-edge supernet to the stacked tensor."""
        target = self.stacked[self.position]
        target.copy_(self.reference[self.part].reshape(target.shape))

    def store(self) -> None:
        """Copy from the stacked tensor to the edge-by-edge supernet."""
        target = self.reference[self.part]
        target.copy_(self.stacked[self.position].reshape(target.shape))


def weight_map(by_source: Iterable[nn.Module], by_edge: Iterable[nn.Module]) -> Iterator[WeightSlice]:
    """Yield a slice for every parameter and buffer that the cells of both arrangements store differently."""
    for source_cell, search_cell in zip(by_source, by_edge, strict=True):
        assert isinstance(source_cell, SourceCell) and isinstance(search_cell, SearchCell)
        for source, operations in enumerate(source_cell.sources):
            assert isinstance(operations, SourceOperations)
            for number, node in enumerate(nodes_of(source)):
                edge = search_cell.edges[edge_index(node, source)]
                assert isinstance(edge, MixedOp)
                yield from _edge(operations, number, edge.operations)
                yield from _last_norms(source_cell, source, node, edge.operations)


def _edge(operations: SourceOperations, number: int, edge: nn.ModuleDict) -> Iterator[WeightSlice]:
    """Map the candidates of one edge, which is its source's ``number``-th."""
    sep, dil, part = edge["sep_conv_3x3"], edge["dil_conv_3x3"], operations.part
    assert isinstance(sep, SepConv) and isinstance(dil, DepthwiseSeparable)
    first, second, dilated = (number,), (number,), (operations.edges + number,)
    yield WeightSlice(operations.depthwise, first, sep.first.depthwise.weight)
    yield WeightSlice(operations.pointwise, first, sep.first.pointwise.weight)
    yield WeightSlice(operations.depthwise_second, second, sep.second.depthwise.weight)
    yield WeightSlice(operations.pointwise_second, second, sep.second.pointwise.weight)
    yield WeightSlice(operations.depthwise, dilated, dil.depthwise.weight)
    yield WeightSlice(operations.pointwise, dilated, dil.pointwise.weight)
    yield from _statistics(operations.running_mean, operations.running_var, number, sep.first.norm)
    if operations.stride == 2:
        skip = edge["skip_connect"]
        assert isinstance(skip, FactorizedReduce) and operations.plain is not None
        yield from _both_halves(operations.plain, number, skip, ())
    if part is not None:
        module = edge["part_aware"]
        assert isinstance(module, PartAware)
        yield from _attention(part, number, module)
        yield from _fusion(operations, part, number, module)
    others = operations.others[number]
    assert isinstance(others, nn.ModuleDict)
    for name, operation in others.items():
        pairs = zip(operation.state_dict().values(), edge[name].state_dict().values(), strict=True)
        yield from (WeightSlice(tensor, (), reference) for tensor, reference in pairs)


def _attention(part: PartAwareEdges, number: int, module: PartAware) -> Iterator[WeightSlice]:
    """Map everything in the part-aware module before its fusing convolution."""
    project, key, query = module.project.convolution, module.key, module.query
    assert project.bias is not None
    yield WeightSlice(part.project_weight, (number,), project.weight)
    yield WeightSlice(part.project_bias, (number,), project.bias)
    yield WeightSlice(part.key_weight, (number,), key.weight)
    yield WeightSlice(part.key_bias, (number,), key.bias)
    yield WeightSlice(part.query_weight, (number,), query.weight)
    yield WeightSlice(part.query_bias, (number,), query.bias)
    yield from _statistics(part.running_mean, part.running_var, number, module.project.norm)


def _fusion(
    operations: SourceOperations, part: PartAwareEdges, number: int, module: PartAware
) -> Iterator[WeightSlice]:
    """Map the fusing convolution: W1, its columns that read x, and W2, those that read the parts."""
    assert operations.plain is not None
    of_x: Index = (slice(None), slice(operations.channels))
    of_part: Index = (slice(None), slice(operations.channels, None))
    if isinstance(module.fuse, ConvBN):
        weight = module.fuse.convolution.weight
        yield WeightSlice(operations.plain, (number,), weight, of_x)
        yield WeightSlice(part.fuse_weight, (number,), weight, of_part)
    else:  # `plain` has the skip connections first
        yield from _both_halves(operations.plain, operations.edges + number, module.fuse, of_x)
        yield from _both_halves(part.fuse_weight, number, module.fuse, of_part)


def _both_halves(stacked: Tensor, row: int, reduce: FactorizedReduce, part: Index) -> Iterator[WeightSlice]:
    """Map a FactorizedReduce: the output channels of its two convolutions, one after the other."""
    half = len(reduce.conv.weight)
    yield WeightSlice(stacked, (row, slice(half)), reduce.conv.weight, part)
    yield WeightSlice(stacked, (row, slice(half, None)), reduce.conv_shifted.weight, part)


def _last_norms(cell: SourceCell, source: int, node: int, edge: nn.ModuleDict) -> Iterator[WeightSlice]:
    """Map the batch norms that end the candidates of one edge; their statistics are at the edge's node."""
    mean, var = cell.get_buffer(f"running_mean_{node}"), cell.get_buffer(f"running_var_{node}")
    for column, name in enumerate(cell.candidates):
        row = source * len(cell.candidates) + column
        if cell.normalized[node][row]:
            norm = edge[name].norm
            assert isinstance(norm, nn.BatchNorm2d)
            yield from _statistics(mean, var, row, norm)


def _statistics(
    mean: Tensor, var: Tensor, row: int, norm: nn.BatchNorm1d | nn.BatchNorm2d
) -> Iterator[WeightSlice]:
    """Map running mean and variance of a batch norm."""
    assert norm.running_mean is not None and norm.running_var is not None
    yield WeightSlice(mean, (row,), norm.running_mean)
    yield WeightSlice(var, (row,), norm.running_var)
