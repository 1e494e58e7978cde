"""The source-arranged supernet against the edge-by-edge reference: same outputs, gradients, statistics."""

import copy
from collections.abc import Callable
from inspect import signature

import pytest
import torch
from torch import Tensor

from autoreid_fast.nas import space as search_spaces
from autoreid_fast.nas.supernet.source_supernet import SourceSupernet
from autoreid_fast.nas.supernet.supernet import Supernet
from autoreid_fast.ops import contract

CASES = [
    ("native", 4, (2, 1, 1, 1), "reid", 3, 100, 40),
    ("native", 5, (1, 1, 1, 1), "reid", 2, 101, 39),  # odd sizes, odd channels
    ("native", 3, (1, 1, 1, 2), "standard", 2, 40, 33),
    ("reference", 4, (1, 1, 1, 1), "reid", 2, 97, 24),
    ("reference", 3, (1, 1, 1, 1), "standard", 3, 39, 9),
]


def both(
    channels: int, cells: tuple[int, ...], space: str, dtype: torch.dtype
) -> tuple[Supernet, SourceSupernet]:
    """One supernet in either arrangement, with alpha far enough from 0 to tell the candidates apart."""
    torch.manual_seed(channels)
    source = SourceSupernet(channels, cells, space).to(dtype)
    with torch.no_grad():
        for alpha in source.architecture_parameters():
            alpha.normal_()
    reference = Supernet(channels, cells, space).to(dtype)
    reference.load_state_dict(source.reference_state_dict())
    return reference, source


def as_reference(source: SourceSupernet, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Values (gradients, say) that belong to ``source``'s parameters, under the reference's names."""
    holder = copy.deepcopy(source)
    with torch.no_grad():
        for name, parameter in holder.named_parameters():
            parameter.copy_(values[name])
    names = dict(Supernet(source.channels, source.cells_per_block, source.space).named_parameters())
    return {name: value for name, value in holder.reference_state_dict().items() if name in names}


def gradients(supernet: Supernet, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """f, and every parameter's gradient of a loss that weighs each of its entries differently."""
    feature = supernet(images)
    weights = torch.linspace(-1, 2, feature.numel(), dtype=feature.dtype).view_as(feature)
    names, parameters = zip(*supernet.named_parameters(), strict=True)
    found = torch.autograd.grad((feature * weights).square().sum(), parameters)
    return feature.detach(), dict(zip(names, found, strict=True))


@pytest.mark.parametrize(("backend", "channels", "cells", "space", "batch", "height", "width"), CASES)
def test_outputs_gradients_and_statistics_are_the_references(
    backend: contract.Backend,
    channels: int,
    cells: tuple[int, ...],
    space: str,
    batch: int,
    height: int,
    width: int,
) -> None:
    reference, source = both(channels, cells, space, torch.float64)
    images = torch.randn(batch, 3, height, width, dtype=torch.float64)
    with contract.backend(backend):
        feature, found = gradients(source, images)
    expected_feature, expected = gradients(reference, images)
    torch.testing.assert_close(feature, expected_feature, rtol=1e-9, atol=1e-9)
    scale = max(float(each.abs().max()) for each in expected.values())
    for name, value in as_reference(source, found).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-7, atol=1e-9 * scale, msg=name)
    moved = reference.state_dict()
    for name, value in source.reference_state_dict().items():  # the running statistics have moved alike
        torch.testing.assert_close(value, moved[name], rtol=1e-9, atol=1e-9, msg=name)
    source.eval(), reference.eval()
    with torch.no_grad(), contract.backend(backend):
        torch.testing.assert_close(source(images), reference(images), rtol=1e-9, atol=1e-9)


def test_a_candidate_that_nothing_shares_runs_as_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """The space with a 5x5 convolution, which the source arrangement does not know."""
    with_5x5 = (*search_spaces.search_space("reid"), "sep_conv_5x5")
    monkeypatch.setitem(search_spaces._SPACES, "reid", with_5x5)
    test_outputs_gradients_and_statistics_are_the_references("native", 4, (1, 1, 1, 1), "reid", 2, 97, 24)
    test_one_random_state_starts_both_alike()


def test_it_takes_the_references_arguments() -> None:
    assert signature(SourceSupernet) == signature(Supernet)


def test_one_random_state_starts_both_alike() -> None:
    torch.manual_seed(3)
    reference, drawn = Supernet(4, (1, 1, 1, 1)), torch.rand(1)
    torch.manual_seed(3)
    source = SourceSupernet(4, (1, 1, 1, 1))
    assert torch.equal(torch.rand(1), drawn), "what is drawn afterwards must not differ either"
    converted = source.reference_state_dict()
    assert converted.keys() == reference.state_dict().keys()
    for name, value in reference.state_dict().items():
        assert torch.equal(converted[name], value), name


def test_float32_kernels_keep_the_parity_rule() -> None:
    """At most twice the error of the reference in float32, both against float64."""
    _, exact = both(6, (1, 1, 1, 1), "reid", torch.float64)
    reference, source = both(6, (1, 1, 1, 1), "reid", torch.float32)
    images = torch.randn(4, 3, 112, 40, dtype=torch.float64)
    feature, found = gradients(source, images.float())
    reference_feature, expected = gradients(reference, images.float())
    exact_feature, wanted = gradients(exact, images)
    wanted = as_reference(exact, wanted)

    def errors(of: dict[str, Tensor]) -> Tensor:
        return torch.stack(
            [(of[name].double() - wanted[name]).norm() / (wanted[name].norm() + 1) for name in wanted]
        )

    twice = 2 * (reference_feature.double() - exact_feature).norm() + 1e-6 * exact_feature.norm()
    assert (feature.double() - exact_feature).norm() <= twice
    assert errors(as_reference(source, found)).norm() <= 2 * errors(expected).norm() + 1e-5


@pytest.mark.parametrize("reduction", [False, True])
def test_a_cell_compiles_whole(reduction: bool) -> None:
    torch.manual_seed(0)
    torch.compiler.reset()
    supernet = SourceSupernet(3, (1, 1, 1, 1))
    older, newer, cell = (
        torch.randn(2, 3, 14, 5),
        torch.randn(2, 12, 14, 5),
        list(supernet.cells())[reduction],
    )
    if not reduction:
        newer = torch.randn(2, 3, 14, 5)
    weights = torch.rand(14, 7, requires_grad=True)

    def results(run: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        output = run(older, newer, weights)
        return (output.detach(), *torch.autograd.grad(output.square().sum(), [weights, *cell.parameters()]))

    expected = results(cell)
    found = results(torch.compile(cell, backend="aot_eager", fullgraph=True))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)
