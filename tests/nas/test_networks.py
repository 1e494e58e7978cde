"""Cells, supernet and derived network: Eq. (1) and (2), shapes, gradients."""

from inspect import signature

import pytest
import torch
from torch import nn

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.nas.cell import CellShape
from autoreid_fast.nas.derivation import derive
from autoreid_fast.nas.derived_network import DerivedCell, DerivedNetwork
from autoreid_fast.nas.genotype import Genotype
from autoreid_fast.nas.input_size import check_input_size
from autoreid_fast.nas.published import GENOTYPES
from autoreid_fast.nas.space import edge_index, search_space
from autoreid_fast.nas.supernet.edge_cell import MixedOp, SearchCell
from autoreid_fast.nas.supernet.supernet import Supernet

REID = search_space("reid")
SMALL = {"channels": 4, "cells_per_block": (1, 1, 1, 1)}
NORMAL = CellShape(8, 16, 6, reduction=False, after_reduction=False)
AFTER = CellShape(8, 16, 6, reduction=False, after_reduction=True)
REDUCTION = CellShape(8, 16, 6, reduction=True, after_reduction=False)


def test_mixed_op_is_the_weighted_sum() -> None:
    mixed = MixedOp(REID, 6, stride=2)
    x, weights = torch.randn(3, 6, 8, 5), torch.rand(len(REID))
    expected = torch.zeros(3, 6, 4, 3)
    for weight, name in zip(weights, REID, strict=True):
        if name != "none":
            expected = expected + weight * mixed.operations[name](x)
    torch.testing.assert_close(mixed(x, weights), expected)


@pytest.mark.parametrize("shape", [NORMAL, AFTER, REDUCTION])
def test_one_hot_weights_choose_operations(shape: CellShape) -> None:
    """Eq. (2) with one-hot weights is the sum of the chosen operations over all earlier inputs."""
    cell = SearchCell(shape, REID)
    choice = torch.randint(len(REID), (14,))
    weights = nn.functional.one_hot(choice, len(REID)).float()
    older, newer = torch.randn(3, 8, 15, 6), torch.randn(3, 16, 15, 6)
    if shape.after_reduction:
        newer = torch.randn(3, 16, 8, 3)
    out = cell(older, newer, weights)

    states = [cell.preprocess.older(older), cell.preprocess.newer(newer)]
    for node in range(4):
        total = torch.zeros(3, 6, 8, 3) if shape is not NORMAL else torch.zeros(3, 6, 15, 6)
        for source, state in enumerate(states):
            edge = edge_index(node, source)
            name = REID[choice[edge]]
            if name != "none":
                total = total + cell.edges[edge].operations[name](state)
        states.append(total)
    torch.testing.assert_close(out, torch.cat(states[2:], dim=1))


def test_supernet_with_decided_alpha_is_its_derived_network() -> None:
    """With one-hot alpha, and none on all other edges, the supernet equals the derived network."""
    genotype = GENOTYPES["autoreid_base_reid"]
    supernet = Supernet(**SMALL)
    for alpha, nodes in [
        (supernet.alpha_normal, genotype.normal),
        (supernet.alpha_reduce, genotype.reduce),
    ]:
        with torch.no_grad():
            alpha.zero_()
            alpha[:, REID.index("none")] = 1e4
            for node, edges in enumerate(nodes):
                for op, source in edges:
                    alpha[edge_index(node, source)] = 1e4 * (torch.arange(len(REID)) == REID.index(op))
    derived = derive(supernet.alpha_normal, supernet.alpha_reduce, "reid")
    assert [set(node) for node in derived.normal] == [set(node) for node in genotype.normal]
    assert [set(node) for node in derived.reduce] == [set(node) for node in genotype.reduce]

    network = DerivedNetwork(genotype, **SMALL)
    _copy_chosen(supernet, network, genotype)
    images = torch.randn(4, 3, 97, 33)
    torch.testing.assert_close(network(images), supernet(images), atol=1e-4, rtol=1e-4)


def _copy_chosen(supernet: Supernet, network: DerivedNetwork, genotype: Genotype) -> None:
    """Copy the supernet's weights to the derived network, and the batch norms behind its pools."""

    def copy(source: nn.Module, target: nn.Module) -> None:
        target.load_state_dict(source.state_dict(), strict=False)  # it has no affine parameters: 1 and 0

    copy(supernet.head, network.head)
    for search, derived in zip(supernet.cells(), network.cells(), strict=True):
        assert isinstance(derived, DerivedCell)
        copy(search.preprocess, derived.preprocess)
        chosen = [(node, *edge) for node, edges in enumerate(derived.nodes) for edge in edges]
        for index, (node, op, source) in enumerate(chosen):
            operation = search.edges[edge_index(node, source)].operations[op]
            if "pool" in op:
                derived.operations[index] = operation
            else:
                copy(operation, derived.operations[index])


@pytest.mark.parametrize(("height", "width"), [(128, 64), (97, 31), (101, 1)])
def test_supernet_shapes_and_gradients(height: int, width: int) -> None:
    supernet = Supernet(channels=4, cells_per_block=(1, 2, 1, 1))
    feature = supernet(torch.randn(2, 3, height, width))
    assert feature.shape == (2, 128) == (2, supernet.feature_dim)
    feature.square().sum().backward()
    for name, parameter in supernet.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    for alpha in supernet.architecture_parameters():
        assert alpha.shape == (14, 7)
        assert (alpha.grad != 0).all()


def test_supernet_parameters() -> None:
    supernet = Supernet(**SMALL, space="standard")
    alphas, omegas = supernet.architecture_parameters(), supernet.operation_parameters()
    assert [tuple(alpha.shape) for alpha in alphas] == [(14, 6), (14, 6)]
    assert {id(p) for p in alphas}.isdisjoint(id(p) for p in omegas)
    assert len(alphas) + len(omegas) == len(list(supernet.parameters()))
    spread = torch.cat([alpha.detach().flatten() for alpha in alphas]).std()
    assert 0.8e-3 < spread < 1.2e-3
    norms = [module for module in supernet.modules() if isinstance(module, nn.BatchNorm2d)]
    assert not any(norm.affine for norm in norms)
    assert all(layer.bias is None for layer in supernet.modules() if isinstance(layer, nn.Conv2d))


def test_alpha_gradient_by_finite_differences() -> None:
    supernet = Supernet(channels=3, cells_per_block=(1, 1, 1, 1)).double()
    images = torch.randn(4, 3, 97, 9).double()
    target = torch.randn(4, supernet.feature_dim).double()

    def loss() -> torch.Tensor:
        return (supernet(images) * target).sum()

    loss().backward()
    for alpha in supernet.architecture_parameters():
        direction = torch.randn_like(alpha)
        slope = (alpha.grad * direction).sum()
        with torch.no_grad():
            alpha += 1e-5 * direction
            above = loss()
            alpha -= 2e-5 * direction
            below = loss()
        torch.testing.assert_close(slope, (above - below) / 2e-5, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", GENOTYPES)
def test_derived_network_shapes_and_gradients(name: str) -> None:
    network = DerivedNetwork(GENOTYPES[name], channels=4, cells_per_block=(1, 1, 2, 1))
    assert network.genotype == GENOTYPES[name]
    assert all(layer.affine for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
    feature = network(torch.randn(2, 3, 97, 35))
    assert feature.shape == (2, 128) == (2, network.feature_dim)
    feature.square().sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


def test_default_sizes_are_the_papers() -> None:
    for network, channels in ((Supernet, 32), (DerivedNetwork, 64)):
        parameters = signature(network).parameters
        assert (parameters["channels"].default, parameters["cells_per_block"].default) == (
            channels,
            (2, 2, 2, 2),
        )


def test_networks_refuse_bad_sizes() -> None:
    for cells in [(2, 2, 2), (2, 0, 2, 2)]:
        with pytest.raises(AutoReIDError, match="cells_per_block"):
            Supernet(4, cells)
    with pytest.raises(AutoReIDError, match="channels 1"):
        DerivedNetwork(GENOTYPES["darts_v2"], channels=1)
    smallest = DerivedNetwork(GENOTYPES["darts_v2"], channels=2)
    assert smallest.cells_per_block == (2, 2, 2, 2) and len(list(smallest.cells())) == 8


@pytest.mark.parametrize(
    ("architecture", "cells", "smallest"),
    [
        ("reid", (2, 2, 2, 2), 97),
        ("reid", (1, 1, 1, 1), 97),
        ("standard", (2, 2, 2, 2), 1),
        (GENOTYPES["darts_v2"], (2, 2, 2, 2), 1),
        # part_aware reads only the inputs of reduction cells: those of the last one are at stride 16.
        (GENOTYPES["autoreid_base_reid"], (1, 1, 1, 1), 49),
        (GENOTYPES["autoreid_retrieval"], (2, 2, 2, 2), 49),
    ],
)
def test_smallest_height(architecture: Genotype | str, cells: tuple[int, ...], smallest: int) -> None:
    """`check_input_size` accepts exactly the sizes that the network can process."""
    if isinstance(architecture, str):
        network = Supernet(3, cells, architecture)
    else:
        network = DerivedNetwork(architecture, 3, cells)
    network.eval()
    check_input_size(smallest, 1, architecture, cells)
    with torch.no_grad():
        assert network(torch.randn(1, 3, smallest, 1)).shape == (1, 96)
    if smallest > 1:
        message = rf"{smallest - 1}x1: part_aware would get 3 rows at .*at least {smallest}$"
        with pytest.raises(AutoReIDError, match=message):
            check_input_size(smallest - 1, 1, architecture, cells)
        with pytest.raises(AutoReIDError, match="part_aware would get 1 row at"):
            check_input_size(1, 1, architecture, cells)
        with pytest.raises(AutoReIDError, match="part_aware got 3 rows"):
            network(torch.randn(1, 3, smallest - 1, 1))


def test_input_size_must_be_positive() -> None:
    for height, width in [(0, 64), (64, 0)]:
        with pytest.raises(AutoReIDError, match=f"{height}x{width}: height and width"):
            check_input_size(height, width, "standard", (2, 2, 2, 2))
    check_input_size(1, 1, "standard", (2, 2, 2, 2))


def test_state_dict_is_strict() -> None:
    network = DerivedNetwork(GENOTYPES["darts_v2"], **SMALL)
    other = DerivedNetwork(GENOTYPES["gdas_v1"], **SMALL)
    images = torch.randn(2, 3, 64, 32)
    copied = DerivedNetwork(GENOTYPES["darts_v2"], **SMALL)
    copied.load_state_dict(network.state_dict())
    torch.testing.assert_close(copied.eval()(images), network.eval()(images))
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict(network.state_dict())
