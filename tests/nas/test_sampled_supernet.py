"""Sampling of GDAS: what is drawn, which candidates run, and the gradient of alpha."""

import pytest
import torch
from torch import Tensor

from autoreid_fast.nas.space import EDGES, search_space
from autoreid_fast.nas.supernet.edge_cell import MixedOp, Sampled
from autoreid_fast.nas.supernet.sampled import SampledSupernet, sample_edges
from autoreid_fast.nas.supernet.supernet import Supernet

REID = search_space("reid")
SMALL = {"channels": 3, "cells_per_block": (1, 1, 1, 1)}


def images() -> Tensor:
    return torch.randn(2, 3, 128, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def supernet() -> SampledSupernet:
    network = SampledSupernet(**SMALL).double()
    with torch.no_grad():
        for alpha in network.architecture_parameters():
            alpha.normal_()
    return network


def columns(sample: list[Sampled]) -> list[int]:
    return [REID.index(edge.operation) for edge in sample]


def test_candidates_are_drawn_with_softmax_probabilities_at_any_temperature() -> None:
    row = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5, 0.0, 1.5])
    expected = torch.softmax(row, dim=0)
    for tau in (10.0, 0.1):
        drawn = columns(sample_edges(row.expand(20_000, -1), tau, REID))
        frequency = torch.bincount(torch.tensor(drawn), minlength=7) / len(drawn)
        deviation = (expected * (1 - expected) / len(drawn)).sqrt()
        assert ((frequency - expected).abs() < 5 * deviation).all()


@pytest.mark.parametrize("tau", [10.0, 1.0, 0.1])
def test_a_drawn_weight_is_one_and_has_the_gradient_of_its_softmax(tau: float) -> None:
    alpha = torch.randn(EDGES, 7, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(3)
    sample = sample_edges(alpha, tau, REID)
    torch.manual_seed(3)
    exponential = torch.empty(EDGES, 7, dtype=torch.float64).exponential_()
    noisy = alpha.detach() - exponential.log()
    assert columns(sample) == noisy.argmax(dim=1).tolist()
    for edge, drawn in enumerate(sample):
        assert drawn.weight == 1 and drawn.weight.shape == ()
        p = torch.exp(noisy[edge] / tau - torch.logsumexp(noisy[edge] / tau, dim=0))
        k = REID.index(drawn.operation)
        expected = torch.zeros(EDGES, 7, dtype=torch.float64)
        expected[edge] = p[k] * (torch.eye(7, dtype=torch.float64)[k] - p) / tau
        (gradient,) = torch.autograd.grad(drawn.weight, alpha, retain_graph=True)
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_it_equals_the_supernet_with_one_hot_weights_and_a_gradient_through_the_softmax() -> None:
    network, tau = supernet(), 2.0
    assert network.tau == 10  # initial temperature of GDAS
    network.tau = tau
    reference = Supernet(**SMALL).double()
    reference.load_state_dict(network.state_dict())

    torch.manual_seed(11)
    feature = network(images())
    target = torch.randn(feature.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gradients = torch.autograd.grad((feature * target).sum(), network.architecture_parameters())

    torch.manual_seed(11)
    one_hots, softmaxes = [], []
    for alpha in reference.architecture_parameters():
        noisy = alpha.detach() - torch.empty(alpha.shape, dtype=torch.float64).exponential_().log()
        one_hots.append(torch.nn.functional.one_hot(noisy.argmax(dim=1), 7).double().requires_grad_())
        softmaxes.append(torch.softmax(noisy / tau, dim=1))
    mixtures = iter(one_hots)
    reference.weights = lambda alpha: next(mixtures)  # type: ignore[method-assign]
    expected = reference(images())
    torch.testing.assert_close(feature, expected, rtol=1e-9, atol=1e-12)
    of_weights = torch.autograd.grad((expected * target).sum(), one_hots)
    for gradient, of_weight, one_hot, p in zip(gradients, of_weights, one_hots, softmaxes, strict=True):
        of_chosen = (of_weight * one_hot).sum(dim=1, keepdim=True)
        p_chosen = (p * one_hot).sum(dim=1, keepdim=True)
        torch.testing.assert_close(
            gradient, of_chosen * p_chosen * (one_hot.detach() - p) / tau, rtol=1e-7, atol=1e-10
        )
        assert gradient.abs().max() > 0


def test_only_drawn_candidates_run() -> None:
    network = supernet()
    ran: list[torch.nn.Module] = []
    edges = [module for module in network.modules() if isinstance(module, MixedOp)]
    for edge in edges:
        for operation in edge.operations.values():
            operation.register_forward_hook(lambda module, *_: ran.append(module))
    torch.manual_seed(4)
    feature = network(images())
    torch.manual_seed(4)
    drawn = [set(enumerate(columns(network.weights(alpha)))) for alpha in network.architecture_parameters()]
    expected = set()
    for cell in network.cells():
        for edge, column in drawn[1 if cell.reduction else 0]:
            if REID[column] != "none":
                expected.add(cell.edges[edge].operations[REID[column]])
    assert len(ran) == len(set(ran))
    assert set(ran) == expected
    feature.sum().backward()
    idle = {p for edge in edges for op in edge.operations.values() if op not in ran for p in op.parameters()}
    assert idle
    assert all(parameter.grad is None for parameter in idle)


def test_none_on_all_edges_gives_zeros_and_alpha_the_gradient_zero() -> None:
    network = supernet()
    with torch.no_grad():
        for alpha in network.architecture_parameters():
            alpha[:, REID.index("none")] = 1000.0
    odd = torch.randn(2, 3, 133, 45, dtype=torch.float64)
    feature = network(odd)
    assert feature.shape == Supernet(**SMALL).double()(odd).shape
    assert not feature.any()
    alphas = network.architecture_parameters()
    gradients = torch.autograd.grad(feature.sum(), alphas, materialize_grads=True)
    assert not any(gradient.any() for gradient in gradients)


def test_torchs_random_state_reproduces_a_pass_and_the_next_pass_draws_again() -> None:
    network = supernet()
    network.eval()
    torch.manual_seed(5)
    first, second = network(images()), network(images())
    torch.manual_seed(5)
    assert torch.equal(network(images()), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("tau", [1e-4, 1e-25, 1e-38, 1e-44])
def test_a_tiny_temperature_gives_the_limit(tau: float) -> None:
    """One certain candidate: weights of 1 and gradients of 0, where a division overflows."""
    torch.manual_seed(4)
    alpha = (1e3 * torch.randn(14, 7)).requires_grad_()
    weights = torch.stack([edge.weight for edge in sample_edges(alpha, tau, search_space("reid"))])
    (gradient,) = torch.autograd.grad(weights.sum(), alpha)
    assert torch.equal(weights, torch.ones(14))
    assert torch.equal(gradient, torch.zeros(14, 7))
