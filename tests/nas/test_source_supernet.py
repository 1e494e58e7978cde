"""The supernet arranged by source equals the edge-by-edge one: outputs, gradients, statistics."""

import copy
from collections.abc import Callable
from inspect import signature

import pytest
import torch
from torch import Tensor

from autoreid_fast.errors import AutoReIDError
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
    """A supernet in both arrangements, with alpha far enough from 0 to tell the candidates apart."""
    torch.manual_seed(channels)
    source = SourceSupernet(channels, cells, space).to(dtype)
    with torch.no_grad():
        for alpha in source.architecture_parameters():
            alpha.normal_()
    reference = Supernet(channels, cells, space).to(dtype)
    reference.load_state_dict(source.reference_state_dict())
    return reference, source


def as_reference(source: SourceSupernet, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Values of ``source``'s parameters, such as gradients, by the names of the reference."""
    holder = copy.deepcopy(source)
    with torch.no_grad():
        for name, parameter in holder.named_parameters():
            parameter.copy_(values[name])
    names = dict(Supernet(source.channels, source.cells_per_block, source.space).named_parameters())
    return {name: value for name, value in holder.reference_state_dict().items() if name in names}


def gradients(supernet: Supernet, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """f, and the gradients of a loss that weighs each entry of f differently."""
    feature = supernet(images)
    weights = torch.linspace(-1, 2, feature.numel(), dtype=feature.dtype).view_as(feature)
    names, parameters = zip(*supernet.named_parameters(), strict=True)
    values = torch.autograd.grad((feature * weights).square().sum(), parameters)
    return feature.detach(), dict(zip(names, values, strict=True))


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
        feature, actual = gradients(source, images)
    expected_feature, expected = gradients(reference, images)
    torch.testing.assert_close(feature, expected_feature, rtol=1e-9, atol=1e-9)
    scale = max(float(value.abs().max()) for value in expected.values())
    for name, value in as_reference(source, actual).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-7, atol=1e-9 * scale, msg=name)
    state = reference.state_dict()  # with moved running statistics
    for name, value in source.reference_state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=1e-9, atol=1e-9, msg=name)
    source.eval(), reference.eval()
    with torch.no_grad(), contract.backend(backend):
        torch.testing.assert_close(source(images), reference(images), rtol=1e-9, atol=1e-9)


def test_a_candidate_without_shared_work_runs_as_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """The space with a 5x5 convolution, for which edges share no work."""
    with_5x5 = (*search_spaces.search_space("reid"), "sep_conv_5x5")
    monkeypatch.setitem(search_spaces._SPACES, "reid", with_5x5)
    test_outputs_gradients_and_statistics_are_the_references("native", 4, (1, 1, 1, 1), "reid", 2, 97, 24)
    test_one_random_state_gives_both_the_same_weights()


def test_both_have_the_same_arguments() -> None:
    assert signature(SourceSupernet) == signature(Supernet)


def test_one_random_state_gives_both_the_same_weights() -> None:
    torch.manual_seed(3)
    reference, drawn = Supernet(4, (1, 1, 1, 1)), torch.rand(1)
    torch.manual_seed(3)
    source = SourceSupernet(4, (1, 1, 1, 1))
    assert torch.equal(torch.rand(1), drawn), "the next random number must not differ either"
    converted = source.reference_state_dict()
    assert converted.keys() == reference.state_dict().keys()
    for name, value in reference.state_dict().items():
        assert torch.equal(converted[name], value), name


def test_float32_has_at_most_twice_the_references_error() -> None:
    """Both errors are against float64."""
    _, exact = both(6, (1, 1, 1, 1), "reid", torch.float64)
    reference, source = both(6, (1, 1, 1, 1), "reid", torch.float32)
    images = torch.randn(4, 3, 112, 40, dtype=torch.float64)
    feature, actual = gradients(source, images.float())
    reference_feature, expected = gradients(reference, images.float())
    exact_feature, exact_gradients = gradients(exact, images)
    exact_gradients = as_reference(exact, exact_gradients)

    def errors(values: dict[str, Tensor]) -> Tensor:
        return torch.stack(
            [(values[name].double() - g).norm() / (g.norm() + 1) for name, g in exact_gradients.items()]
        )

    twice = 2 * (reference_feature.double() - exact_feature).norm() + 1e-6 * exact_feature.norm()
    assert (feature.double() - exact_feature).norm() <= twice
    assert errors(as_reference(source, actual)).norm() <= 2 * errors(expected).norm() + 1e-5


@pytest.mark.parametrize("reduction", [False, True])
def test_a_cell_compiles_as_one_graph(reduction: bool) -> None:
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
    actual = results(torch.compile(cell, backend="aot_eager", fullgraph=True))
    for value, expected_value in zip(actual, expected, strict=True):
        torch.testing.assert_close(value, expected_value, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("change", ["frozen", "momentum"])
def test_batch_norms_that_those_inside_ops_would_not_follow(change: str) -> None:
    """A network whose visible batch norms are frozen or changed would be frozen in part."""
    source = SourceSupernet(3, (1, 1, 1, 1))
    images = torch.randn(2, 3, 97, 32)
    for norm in [layer for layer in source.modules() if isinstance(layer, torch.nn.BatchNorm2d)]:
        if change == "frozen":
            norm.eval()
        else:
            norm.momentum = None  # as `update_bn` does
    with pytest.raises(
        AutoReIDError, match=r"batch norm `preprocess\.older\.2` of a cell was changed.*Supernet"
    ):
        source(images)


def test_whole_cells_can_be_frozen() -> None:
    source = SourceSupernet(3, (1, 1, 1, 1))
    source.block2.eval()
    before = {name: value.clone() for name, value in source.named_buffers()}
    source(torch.randn(2, 3, 97, 32))
    moved = {name for name, value in source.named_buffers() if not torch.equal(value, before[name])}
    assert moved and not any(name.startswith("block2.") for name in moved)


def without(state: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if part not in key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: without(state, "alpha_reduce"), "missing alpha_reduce"),
        (lambda state: without(state, "head."), r"missing head\.0\.weight"),
        (lambda state: without(state, "block3.0.edges.5"), r"missing block3\.0\.edges\.5.* and \d+ more"),
        (lambda state: state | {"block1.1.edges.0": torch.ones(1)}, r"unexpected block1\.1"),
        (lambda state: state | {"alpha_normal": torch.ones(14, 6)}, r"alpha_normal has shape \(14, 6\)"),
        (lambda state: state | {"alpha_normal": torch.full((14, 7), torch.nan)}, "alpha_normal has NaN"),
        (lambda state: {f"module.{key}": value for key, value in state.items()}, "remove `module.`"),
    ],
)
def test_state_dicts_that_do_not_fit_change_nothing(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str
) -> None:
    state = Supernet(3, (1, 1, 1, 1)).state_dict()
    source = SourceSupernet(3, (1, 1, 1, 1))
    before = {name: value.clone() for name, value in source.state_dict().items()}
    with pytest.raises(AutoReIDError, match=f"load_reference_state_dict: `state`: .*{message}"):
        source.load_reference_state_dict(change(state))
    assert all(torch.equal(value, before[name]) for name, value in source.state_dict().items())
    source.load_reference_state_dict(without(state, "num_batches_tracked"))
    assert torch.equal(source.alpha_reduce, state["alpha_reduce"])


def test_a_space_without_its_shared_work_is_refused() -> None:
    operations = [name for name in search_spaces.search_space("standard") if name != "avg_pool_3x3"]
    search_spaces.register_search_space("without_average_pools", operations)
    with pytest.raises(AutoReIDError, match=r"needs avg_pool_3x3; add them, or use supernet reference"):
        SourceSupernet(3, (1, 1, 1, 1), "without_average_pools")
    Supernet(3, (1, 1, 1, 1), "without_average_pools")
